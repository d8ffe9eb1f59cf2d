// Package durable makes what was written outlive a power cut.
package durable

import (
	"errors"
	"os"
)

// SyncDir puts the names in a directory on the disk: a file that was made or renamed
// there may else be gone, or have its old name, after a power cut (fsync(2)).
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
