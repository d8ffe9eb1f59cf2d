package block

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Lock takes an open-file-description lock on all of a disk's file: exclusive for
// a disk that is written, shared for one that is only read. The lock belongs to
// the open file: a copy sent to another process holds it too, and it ends when
// the last copy is closed. QV_STR_ERR_LOCK says that another open file has it.
func Lock(file *os.File, exclusive bool) error {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET}
	if exclusive {
		lock.Type = unix.F_WRLCK
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return qverr.New(qverr.StrIO, "lock disk %s: %w", file.Name(), err)
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) {
		lockErr = unix.FcntlFlock(fd, unix.F_OFD_SETLK, &lock)
	}); err != nil {
		return qverr.New(qverr.StrIO, "lock disk %s: %w", file.Name(), err)
	}
	switch {
	case lockErr == nil:
		return nil
	case errors.Is(lockErr, unix.EAGAIN), errors.Is(lockErr, unix.EACCES):
		return qverr.New(qverr.StrLock, "disk %s is in use by another VM or process: %w", file.Name(), lockErr)
	}
	return qverr.New(qverr.StrIO, "lock disk %s: %w", file.Name(), lockErr)
}
