package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

// Bucket is a named set of keys.
type Bucket string

// The buckets of schema version 1.
const (
	VMs      Bucket = "vms"
	Images   Bucket = "images"
	Disks    Bucket = "disks"
	Tokens   Bucket = "tokens"
	Tasks    Bucket = "tasks"
	Leases   Bucket = "leases"
	Settings Bucket = "settings"
)

// lockWait is how long Open waits for another process to let go of the file: a
// daemon that is being replaced needs a moment to end.
const lockWait = 5 * time.Second

// DB is an open state file.
type DB struct {
	bolt *bbolt.DB
}

// Open opens or makes the state file at path and migrates it. A new file begins
// with what the functions put in.
func Open(path string, first ...func(*Tx) error) (*DB, error) { return open(path, migrations, first) }

func open(path string, steps []migration, first []func(*Tx) error) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, qverr.New(qverr.IO, "make the state directory: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path, steps, first); err != nil {
			return nil, err
		}
	}
	bolt, err := openBolt(path, false)
	if err != nil {
		return nil, err
	}
	if err := migrate(bolt, steps); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return &DB{bolt: bolt}, nil
}

// create makes a file that is whole when it gets its name: nothing before that
// needs to be on the disk, so it is synced once and not at each step.
func create(path string, steps []migration, first []func(*Tx) error) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.IO, "remove what an earlier start left: %w", err)
	}
	bolt, err := openBolt(temp, true)
	if err != nil {
		return err
	}
	db := &DB{bolt: bolt}
	err = migrate(bolt, steps)
	for _, fn := range first {
		if err == nil {
			err = db.Update(fn)
		}
	}
	if err == nil {
		err = wrap("write", bolt.Sync())
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp, path); err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return qverr.New(qverr.IO, "name the state file: %w", err)
	}
	return nil
}

func openBolt(path string, noSync bool) (*bbolt.DB, error) {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        lockWait,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoSync:         noSync,
		NoGrowSync:     noSync,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, qverr.New(qverr.Busy, "state file %s is in use by another process", path)
	case err != nil:
		return nil, qverr.New(qverr.IO, "open state file %s: %w", path, err)
	}
	return bolt, nil
}

// Close waits for running transactions and closes the file.
func (d *DB) Close() error {
	if err := d.bolt.Close(); err != nil {
		return qverr.New(qverr.IO, "close the state file: %w", err)
	}
	return nil
}

// Tx is a transaction.
type Tx struct {
	bolt *bbolt.Tx
}

// Update runs fn in a transaction that is kept when fn returns nil.
func (d *DB) Update(fn func(*Tx) error) error {
	return wrap("update", d.bolt.Update(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) }))
}

// View runs fn in a read-only transaction.
func (d *DB) View(fn func(*Tx) error) error {
	return wrap("read", d.bolt.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) }))
}

// wrap gives a code to what bbolt itself reports; errors of fn keep theirs.
func wrap(what string, err error) error {
	var coded *qverr.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	if code := qverr.CodeOf(err); code != qverr.Generic {
		return qverr.New(code, "%s the state file: %w", what, err)
	}
	return qverr.New(qverr.IO, "%s the state file: %w", what, err)
}

// Put stores v under key.
func (t *Tx) Put(b Bucket, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", b, key, err)
	}
	return t.bucket(b).Put([]byte(key), data)
}

// Get reads key into v; QV_ERR_NOENT when it is not there.
func (t *Tx) Get(b Bucket, key string, v any) error {
	data := t.bucket(b).Get([]byte(key))
	if data == nil {
		return qverr.New(qverr.NoEnt, "%s has no %q", b, key)
	}
	return decode(b, key, data, v)
}

// Delete removes key; a key that is not there is no error.
func (t *Tx) Delete(b Bucket, key string) error { return t.bucket(b).Delete([]byte(key)) }

// Keys lists the keys of b in order.
func (t *Tx) Keys(b Bucket) []string {
	var keys []string
	c := t.bucket(b).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		keys = append(keys, string(k))
	}
	return keys
}

func (t *Tx) bucket(b Bucket) *bbolt.Bucket { return t.bolt.Bucket([]byte(b)) }

func decode(b Bucket, key string, data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return qverr.New(qverr.IO, "decode %s/%s: %w", b, key, err)
	}
	return nil
}

// Put stores one value in its own transaction.
func (d *DB) Put(b Bucket, key string, v any) error {
	return d.Update(func(t *Tx) error { return t.Put(b, key, v) })
}

// Get reads one value; QV_ERR_NOENT when it is not there.
func (d *DB) Get(b Bucket, key string, v any) error {
	return d.View(func(t *Tx) error { return t.Get(b, key, v) })
}

// Delete removes one key.
func (d *DB) Delete(b Bucket, key string) error {
	return d.Update(func(t *Tx) error { return t.Delete(b, key) })
}

// All reads every value of b in the order of the keys.
func All[T any](d *DB, b Bucket) ([]T, error) {
	var out []T
	err := d.View(func(t *Tx) error {
		return Each(t, b, func(_ string, v T) error { out = append(out, v); return nil })
	})
	return out, err
}
