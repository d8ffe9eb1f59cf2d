package backup

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

// Folders of a restore in the data directory.
const (
	staging = ".restore"      // being unpacked; worth nothing
	wanted  = "restore"       // whole and checked: to be put in place
	done    = ".restore-done" // put in place; worth nothing
	before  = "state-before"  // what the last restore replaced
)

// snapshots are those that a backup was cut off in.
const snapshots = ".backup-*"

// Finish puts a restored state in place if there is one, before anything of the
// state is opened; it says whether there was. It can be cut off anywhere, and goes
// on where it was at the next call.
func Finish(dataDir string) (bool, error) {
	in := func(name string) string { return filepath.Join(dataDir, name) }
	rests, err := filepath.Glob(in(snapshots))
	if err != nil {
		return false, failed(err)
	}
	for _, rest := range append(rests, in(staging), in(done)) {
		if err := os.RemoveAll(rest); err != nil {
			return false, failed(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(in(wanted), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var m Manifest
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil {
		err = os.MkdirAll(in(before), 0o700)
	}
	if err != nil {
		return false, failed(err)
	}
	has := make(map[string]bool)
	for _, f := range m.Files {
		name, _, _ := strings.Cut(f.Name, "/")
		has[name] = true
	}
	for _, list := range [][]string{folders, single} {
		for _, name := range list {
			if err := replace(in(name), filepath.Join(in(wanted), name), filepath.Join(in(before), name), has[name]); err != nil {
				return false, failed(err)
			}
		}
	}
	if err := errors.Join(durable.SyncDir(in(before)), durable.SyncDir(dataDir)); err != nil {
		return false, failed(err)
	}
	if err := errors.Join(os.Rename(in(wanted), in(done)), durable.SyncDir(dataDir)); err != nil {
		return false, failed(err)
	}
	return true, os.RemoveAll(in(done))
}

func failed(err error) error {
	return qverr.New(qverr.CodeOf(err), "put the restored state in place: %w", err)
}

// replace brings one part into its place, or, if the backup has none, empties that.
// A part that is wanted and not there to be moved is in place from an earlier try.
func replace(at, from, old string, put bool) error {
	if put {
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err := os.Rename(at, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !put {
		return nil
	}
	return os.Rename(from, at)
}
