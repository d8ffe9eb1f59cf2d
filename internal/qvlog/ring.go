package qvlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

// Ring is a bounded log file: lines are appended to one file, and when it holds
// half of the limit it replaces the previous one (".1"). Both together never
// exceed the limit. A power cut costs at most the lines since the last Sync:
// what it leaves half-written is cut off at the next OpenRing and skipped by
// readers. One process writes a ring.
type Ring struct {
	mu      sync.Mutex
	path    string
	half    int64
	f       *os.File
	size    int64
	changed chan struct{} // closed at the next line
}

// MinRing is the smallest limit of a ring, in bytes.
const MinRing = 4096

// OpenRing opens or makes the ring at path, bounded to limit bytes.
func OpenRing(path string, limit int64) (*Ring, error) {
	if limit < MinRing {
		return nil, qverr.New(qverr.Inval, "log ring %s: limit %d is below %d bytes", path, limit, MinRing)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, ringError("make the folder of", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, ringError("open", path, err)
	}
	size, err := trim(f)
	if err != nil {
		f.Close()
		return nil, ringError("repair", path, err)
	}
	return &Ring{path: path, half: limit / 2, f: f, size: size, changed: make(chan struct{})}, nil
}

// trim cuts the file after its last complete line. File systems leave NULs or
// part of a line at the end of a file that was being written at a power cut.
func trim(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	good := int64(0)
	buf := make([]byte, 64<<10)
	for pos := end; pos > 0 && good == 0; {
		n := min(pos, int64(len(buf)))
		pos -= n
		if _, err := f.ReadAt(buf[:n], pos); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			good = pos + int64(i) + 1
		}
	}
	if good != end {
		if err := f.Truncate(good); err != nil {
			return 0, err
		}
	}
	_, err = f.Seek(good, io.SeekStart)
	return good, err
}

// Write appends p, which is one line with its end. A line longer than half of
// the limit is refused.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return 0, ringError("write", r.path, fs.ErrClosed)
	}
	if int64(len(p)) > r.half {
		return 0, qverr.New(qverr.Inval, "log ring %s: a line of %d bytes does not fit", r.path, len(p))
	}
	if r.size+int64(len(p)) > r.half {
		if err := r.rotate(); err != nil {
			return 0, ringError("rotate", r.path, err)
		}
	}
	n, err := r.f.Write(p)
	if err != nil {
		// Half a line would swallow the next one: take it back.
		if n > 0 && r.f.Truncate(r.size) == nil {
			_, _ = r.f.Seek(r.size, io.SeekStart)
			n = 0
		}
		r.size += int64(n)
		return n, ringError("write", r.path, err)
	}
	r.size += int64(n)
	close(r.changed)
	r.changed = make(chan struct{})
	return n, nil
}

// rotate makes the file the previous one and starts an empty one. The old lines
// are on disk before the rename, the rename before new lines.
func (r *Ring) rotate() error {
	if err := r.f.Sync(); err != nil {
		return err
	}
	// ErrNotExist: an earlier attempt got this far and could not make the file.
	if err := os.Rename(r.path, r.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	r.f.Close()
	r.f, r.size = f, 0
	return durable.SyncDir(filepath.Dir(r.path))
}

// Sync brings everything written so far to the disk.
func (r *Ring) Sync() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	if err := r.f.Sync(); err != nil {
		return ringError("sync", r.path, err)
	}
	return nil
}

// Close syncs and closes the ring.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	err := errors.Join(r.f.Sync(), r.f.Close())
	r.f = nil
	close(r.changed)
	if err != nil {
		return ringError("close", r.path, err)
	}
	return nil
}

// next returns a channel that is closed when a line is added or the ring is
// closed; nil when it is closed already.
func (r *Ring) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	return r.changed
}

func ringError(verb, path string, err error) error {
	return qverr.New(qverr.CodeOf(err), "%s log ring: %w", verb, pathError(path, err))
}

func pathError(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
