package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"quantavirt/internal/qverr"
)

// saveFile makes a file that must not be there yet, for its owner alone. It gets its name
// when fill has written all of it; else nothing is left. n is its size.
func saveFile(path string, fill func(w io.Writer) error) (n int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, qverr.New(qverr.Exist, "%s is there already", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".quantavirt-*") // mode 0600
	if err != nil {
		return 0, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := fill(f); err != nil {
		_ = f.Close()
		return 0, err
	}
	n, err = f.Seek(0, io.SeekCurrent)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), path)); err != nil {
		return n, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	return n, nil
}
