package memory

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Fill copies n bytes at off of a file to gpa. The kernel does it without mapping the
// pages here and without clearing them before, in half the time of a read
// (sendfile(2)). It must not be called from several goroutines at once. QV_ERR_IO:
// the file cannot be read or is too short.
func (m *Memory) Fill(gpa, n uint64, f *os.File, off int64) error {
	dst, err := m.Slice(gpa, n)
	if err != nil || n == 0 {
		return err
	}
	at := int64(uintptr(unsafe.Pointer(&dst[0])) - uintptr(unsafe.Pointer(&m.mapping[0])))
	done, err := m.send(at, len(dst), f, off)
	if done == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
		_, err = f.ReadAt(dst, off) // huge pages cannot be written to, nor can every file be sent
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return qverr.New(qverr.IO, "load %d bytes at %d of a boot file: %w", n, off, err)
	}
	return nil
}

// send copies n bytes at off of a file to at in the memfd.
func (m *Memory) send(at int64, n int, f *os.File, off int64) (done int, err error) {
	if _, err := m.file.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	for done < n {
		sent, err := unix.Sendfile(m.FD(), int(f.Fd()), &off, n-done)
		switch {
		case err == unix.EINTR: // the runtime's preemption signal came
		case err != nil:
			return done, err
		case sent == 0:
			return done, io.ErrUnexpectedEOF
		default:
			done += sent
		}
	}
	return done, nil
}
