package store

import (
	"io"

	"go.etcd.io/bbolt"
)

// Snapshot writes the whole file as it is at this moment.
func (d *DB) Snapshot(w io.Writer) error {
	return wrap("copy", d.bolt.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	}))
}
