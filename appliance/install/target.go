package install

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// target is the disk while it is written: it remembers what was written where.
type target struct {
	f       *os.File
	block   bool // a block device, no file
	written []extent
	report  func(bytes int64) // of each write and each comparison
}

type extent struct {
	off, size int64
	sum       [sha256.Size]byte
}

// openTarget opens a disk for nobody else: the kernel refuses if it or one of its
// partitions is mounted or part of something (open(2), O_EXCL). QV_ERR_BUSY.
func openTarget(path string, report func(int64)) (*target, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(qverr.New(qverr.IO, "open %s: %w", path, err), f.Close())
	}
	return &target{f: f, block: info.Mode()&os.ModeDevice != 0, report: report}, nil
}

// WriteAt implements io.WriterAt.
func (t *target) WriteAt(p []byte, off int64) (int, error) {
	n, err := t.f.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	// What was there before is not there any more.
	t.written = slices.DeleteFunc(t.written, func(e extent) bool { return e.off < off+int64(n) && off < e.off+e.size })
	t.written = append(t.written, extent{off, int64(n), sha256.Sum256(p)})
	t.report(int64(n))
	return n, nil
}

// flush brings everything to the disk, and forgets what memory holds of it, so
// that what is read next comes from there.
func (t *target) flush() error {
	if err := t.f.Sync(); err != nil {
		return qverr.New(qverr.StrIO, "flush %s: %w", t.f.Name(), err)
	}
	var err error
	if t.block {
		err = unix.IoctlSetInt(int(t.f.Fd()), unix.BLKFLSBUF, 0)
	} else {
		err = unix.Fadvise(int(t.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return qverr.New(qverr.StrIO, "forget what was cached of %s: %w", t.f.Name(), err)
	}
	return nil
}

// verify reads back everything that was written. QV_STR_ERR_IO: the disk gives
// something else.
func (t *target) verify() error {
	var buf []byte
	for _, e := range t.written {
		if int64(cap(buf)) < e.size {
			buf = make([]byte, e.size)
		}
		b := buf[:e.size]
		if _, err := t.f.ReadAt(b, e.off); err != nil {
			return qverr.New(qverr.StrIO, "read back %s at %d: %w", t.f.Name(), e.off, err)
		}
		if sha256.Sum256(b) != e.sum {
			return qverr.New(qverr.StrIO, "%s holds something else at %d than was written there: do not use it", t.f.Name(), e.off)
		}
		t.report(e.size)
	}
	return nil
}

// size of what verify reads, in bytes.
func (t *target) size() int64 {
	var n int64
	for _, e := range t.written {
		n += e.size
	}
	return n
}

func (t *target) close() error {
	if err := t.f.Close(); err != nil {
		return qverr.New(qverr.StrIO, "close %s: %w", t.f.Name(), err)
	}
	return nil
}

// reread has the kernel read the partition table again.
func reread(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeDevice == 0 {
		return err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil {
		return qverr.New(qverr.CodeOf(err), "have the kernel read the partitions of %s: %w", path, err)
	}
	return nil
}

// wipe clears the edges of a disk, where a file system's own maker may leave
// signatures of what was there.
func wipe(w io.WriterAt, size int64) error {
	const edge = 1 << 20
	zeroes := make([]byte, edge)
	for _, at := range []int64{0, size - edge} {
		if _, err := w.WriteAt(zeroes, at); err != nil {
			return fmt.Errorf("clear the disk: %w", err)
		}
	}
	return nil
}
