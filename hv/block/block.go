package block

import (
	"errors"
	"syscall"

	"quantavirt/internal/qverr"
)

// SectorSize is the unit of sizes, in bytes. Offsets and lengths of reads and
// writes need not be multiples of it.
const SectorSize = 512

// Device is a virtual disk. Its methods may be called from several goroutines;
// requests that overlap and run at the same time have no order.
type Device interface {
	// ReadVec fills all of iov from offset off on.
	ReadVec(iov [][]byte, off int64) error
	// WriteVec writes all of iov from offset off on. When it returns, the data is
	// in a cache of the host at least; Flush makes it durable.
	WriteVec(iov [][]byte, off int64) error
	// Flush makes all writes that returned before it durable.
	Flush() error
	// Discard says that n bytes from off on are not needed any more. What they
	// read as afterwards is not defined. QV_STR_ERR_DISCARD means that the disk
	// cannot do it.
	Discard(off, n int64) error
	// WriteZeroes makes n bytes from off on read as zero; unmap allows to free
	// their space.
	WriteZeroes(off, n int64, unmap bool) error
	// Size is the disk's size in bytes, a multiple of SectorSize.
	Size() int64
	// Close releases the disk. It does not flush.
	Close() error
}

// Length is the number of bytes in iov.
func Length(iov [][]byte) int64 {
	var n int64
	for _, b := range iov {
		n += int64(len(b))
	}
	return n
}

// checkRange refuses a range that is not inside a disk of the given size.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return qverr.New(qverr.Inval, "range of %d bytes at %d is not inside a disk of %d bytes", n, off, size)
	}
	return nil
}

// storageError gives an error of the host's storage its code.
func storageError(err error, format string, args ...any) error {
	code := qverr.StrIO
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		code = qverr.StrFull
	case errors.Is(err, syscall.EROFS):
		code = qverr.StrReadonly
	}
	return qverr.New(code, format+": %w", append(args, err)...)
}
