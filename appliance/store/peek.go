package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"quantavirt/internal/qverr"
)

// Peek reads the state file at path without changing it, whatever its schema
// version, and without waiting for another process longer than wait
// (QV_ERR_BUSY). A damaged file may make it panic: who cannot have that peeks in
// a process of its own.
func Peek(path string, wait time.Duration, fn func(*Tx) error) error {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, ReadOnly: true})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return qverr.New(qverr.Busy, "state file %s is in use by another process", path)
	case err != nil:
		return qverr.New(qverr.IO, "read state file %s: %w", path, err)
	}
	err = bolt.View(func(tx *bbolt.Tx) error {
		for _, b := range []Bucket{VMs, Images, Disks, Tokens, Tasks, Leases, Settings} {
			if tx.Bucket([]byte(b)) == nil {
				return fmt.Errorf("bucket %s is missing", b)
			}
		}
		return fn(&Tx{tx})
	})
	return errors.Join(wrap("read", err), bolt.Close())
}

// Each decodes every value of b in the order of the keys.
func Each[T any](tx *Tx, b Bucket, fn func(key string, v T) error) error {
	return tx.bucket(b).ForEach(func(k, data []byte) error {
		var v T
		if err := decode(b, string(k), data, &v); err != nil {
			return err
		}
		return fn(string(k), v)
	})
}
