package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"quantavirt/internal/qverr"
)

type record struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

func testDB(t *testing.T) *DB {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestPutGetDeleteAll(t *testing.T) {
	db := testDB(t)
	for i, name := range []string{"b", "a"} {
		if err := db.Put(VMs, name, record{name, i}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := All[record](db, VMs)
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].N != 0 {
		t.Fatalf("All = %v, %v", all, err)
	}
	if err := db.Delete(VMs, "a"); err != nil {
		t.Fatal(err)
	}
	var r record
	if err := db.Get(VMs, "a", &r); !errors.Is(err, qverr.NoEnt) {
		t.Fatalf("Get of a deleted key: %v", err)
	}
	if err := db.Get(VMs, "b", &r); err != nil || r.Name != "b" {
		t.Fatalf("Get = %v, %v", r, err)
	}
}

func TestUpdateKeepsNothingOnError(t *testing.T) {
	db := testDB(t)
	want := qverr.New(qverr.Exist, "no")
	err := db.Update(func(tx *Tx) error {
		if err := tx.Put(VMs, "a", record{}); err != nil {
			return err
		}
		return want
	})
	if !errors.Is(err, qverr.Exist) {
		t.Fatalf("code is lost: %v", err)
	}
	if err := db.Get(VMs, "a", &record{}); !errors.Is(err, qverr.NoEnt) {
		t.Fatalf("half an update stayed: %v", err)
	}
}

func TestReopenKeepsState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for i := range 3 {
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var r record
		err = db.Get(Settings, "x", &r)
		if i > 0 && (err != nil || r.N != i) {
			t.Fatalf("round %d: %v %v", i, r, err)
		}
		if err := db.Put(Settings, "x", record{N: i + 1}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	renamed := func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(VMs)).Put([]byte("new"), tx.Bucket([]byte(VMs)).Get([]byte("old")))
	}
	failing := func(tx *bbolt.Tx) error {
		_ = tx.Bucket([]byte(VMs)).Delete([]byte("new"))
		return errors.New("no")
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Put(VMs, "old", record{N: 7}); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()

	v2 := append(append([]migration{}, migrations...), migration{2, renamed})
	db, err = open(path, v2, nil)
	if err != nil {
		t.Fatal(err)
	}
	var r record
	if err := db.Get(VMs, "new", &r); err != nil || r.N != 7 {
		t.Fatalf("migrated value: %v, %v", r, err)
	}
	_ = db.Close()
	if _, err := os.Stat(path + ".v1"); err != nil {
		t.Errorf("no copy of the file before its migration: %v", err)
	}

	v3 := append(append([]migration{}, v2...), migration{3, failing})
	if _, err := open(path, v3, nil); err == nil {
		t.Fatal("a failing migration went through")
	}
	db, err = open(path, v2, nil)
	if err != nil {
		t.Fatalf("the file is lost after a failed migration: %v", err)
	}
	if err := db.Get(VMs, "new", &r); err != nil {
		t.Errorf("a failed migration left half of itself: %v", err)
	}
	_ = db.Close()

	if _, err := Open(path); !errors.Is(err, qverr.Version) {
		t.Errorf("a newer file: %v, want QV_ERR_VERSION", err)
	}
}

// A new file begins with what it is given, whole or not at all.
func TestFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path+".new", []byte("cut off by a power cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	no := qverr.New(qverr.Exist, "no")
	put := func(name string) func(*Tx) error {
		return func(tx *Tx) error { return tx.Put(Settings, name, record{Name: name}) }
	}
	if _, err := Open(path, put("a"), func(*Tx) error { return no }); !errors.Is(err, qverr.Exist) {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that could not be filled: %v", err)
	}
	for n := range 2 { // what is in the file the second time is not filled in again
		db, err := Open(path, put("b"))
		if err != nil {
			t.Fatal(err)
		}
		var r record
		if err := db.Get(Settings, "b", &r); err != nil || r.Name != "b" || r.N != n {
			t.Errorf("%+v, %v", r, err)
		}
		if err := errors.Join(db.Put(Settings, "b", record{Name: "b", N: n + 1}), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
