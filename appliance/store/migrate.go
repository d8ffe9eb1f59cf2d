package store

import (
	"encoding/binary"
	"fmt"
	"os"

	"go.etcd.io/bbolt"

	"quantavirt/internal/qverr"
)

// A migration takes the file from the version before it to its own.
type migration struct {
	version uint64
	apply   func(*bbolt.Tx) error
}

var migrations = []migration{
	{1, func(tx *bbolt.Tx) error {
		for _, b := range []Bucket{VMs, Images, Disks, Tokens, Tasks, Leases, Settings} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return fmt.Errorf("bucket %s: %w", b, err)
			}
		}
		return nil
	}},
}

var (
	metaBucket = []byte("meta")
	schemaKey  = []byte("schema")
)

func schemaVersion(tx *bbolt.Tx) uint64 {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return 0
	}
	if v := meta.Get(schemaKey); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func migrate(db *bbolt.DB, steps []migration) error {
	var have uint64
	if err := db.View(func(tx *bbolt.Tx) error { have = schemaVersion(tx); return nil }); err != nil {
		return qverr.New(qverr.IO, "read the schema version: %w", err)
	}
	want := steps[len(steps)-1].version
	if have > want {
		return qverr.New(qverr.Version, "%s has schema version %d, this daemon knows up to %d", db.Path(), have, want).
			With("schema_version", have)
	}
	if have > 0 && have < want {
		if err := keepCopy(db, have); err != nil {
			return err
		}
	}
	for _, step := range steps {
		if step.version <= have {
			continue
		}
		if err := db.Update(func(tx *bbolt.Tx) error { return applyStep(tx, step) }); err != nil {
			return qverr.New(qverr.IO, "migrate %s to schema version %d: %w", db.Path(), step.version, err)
		}
	}
	return nil
}

func applyStep(tx *bbolt.Tx, step migration) error {
	if err := step.apply(tx); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	return meta.Put(schemaKey, binary.BigEndian.AppendUint64(nil, step.version))
}

// keepCopy puts the file aside before a migration, as NAME.vVERSION.
func keepCopy(db *bbolt.DB, version uint64) error {
	path := fmt.Sprintf("%s.v%d", db.Path(), version)
	err := db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path+".tmp", 0o600) })
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return qverr.New(qverr.IO, "copy the state file before its migration: %w", err)
	}
	return nil
}
