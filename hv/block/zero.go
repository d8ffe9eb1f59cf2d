package block

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// zeroes is what a range is overwritten with where the file system cannot do it.
// It is larger than a page so that a big range does not take a call a page.
var zeroes [64 << 10]byte

// Discard implements Device by punching a hole.
func (r *Raw) Discard(off, n int64) error {
	if err := r.checkClear(off, n); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	err := r.punch(off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return qverr.New(qverr.StrDiscard, "disk %s: its file system cannot free a range: %w", r.file.Name(), err)
	}
	if err != nil {
		return storageError(err, "discard %d bytes at %d of disk %s", n, off, r.file.Name())
	}
	return nil
}

// WriteZeroes implements Device: a hole, a zeroed range, or zeroes written out,
// the first that the file system can.
func (r *Raw) WriteZeroes(off, n int64, unmap bool) error {
	if err := r.checkClear(off, n); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	err := error(unix.EOPNOTSUPP)
	if unmap {
		err = r.punch(off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = r.zeroRange(off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return r.writeZeroBytes(off, n)
	}
	if err == nil && r.sync {
		err = unix.Fdatasync(r.fd)
	}
	if err != nil {
		return storageError(err, "zero %d bytes at %d of disk %s", n, off, r.file.Name())
	}
	return nil
}

// checkClear refuses what a discard or zeroes may not do.
func (r *Raw) checkClear(off, n int64) error {
	if err := r.writable(); err != nil {
		return err
	}
	return checkRange(off, n, r.size)
}

const punchMode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

const zeroMode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE

// clearMode is how one fallocate does a discard or zeroes; 0 if it takes more.
func (r *Raw) clearMode(req *Request) uint32 {
	switch {
	case req.Durable || req.Op == OpWriteZeroes && r.sync:
		return 0
	case (req.Op == OpDiscard || req.Unmap) && !r.noPunch.Load():
		return punchMode
	case req.Op == OpWriteZeroes && !r.noZero.Load():
		return zeroMode
	}
	return 0
}

func (r *Raw) punch(off, n int64) error {
	return r.fallocate(&r.noPunch, punchMode, off, n)
}

func (r *Raw) zeroRange(off, n int64) error {
	return r.fallocate(&r.noZero, zeroMode, off, n)
}

// fallocate remembers in never that the file system cannot do it.
func (r *Raw) fallocate(never *atomic.Bool, mode uint32, off, n int64) error {
	if never.Load() {
		return unix.EOPNOTSUPP
	}
	for {
		err := unix.Fallocate(r.fd, mode, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENODEV):
			never.Store(true)
			return unix.EOPNOTSUPP
		}
		return err
	}
}

func (r *Raw) writeZeroBytes(off, n int64) error {
	iov := make([][]byte, 0, 16)
	for n > 0 {
		iov = iov[:0]
		var length int64
		for len(iov) < cap(iov) && length < n {
			part := min(n-length, int64(len(zeroes)))
			iov = append(iov, zeroes[:part])
			length += part
		}
		if err := r.WriteVec(iov, off); err != nil {
			return err
		}
		off, n = off+length, n-length
	}
	return nil
}
