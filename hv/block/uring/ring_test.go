package uring

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestRestricted tries what a ring could do past a filter of system calls.
func TestRestricted(t *testing.T) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	r, err := New(8, event)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const opNop, opOpenat, opSocket = 0, 18, 45
	path, data := []byte("/\x00"), []byte("data")
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&path[0])
	pinner.Pin(&data[0])
	for _, c := range []struct {
		name string
		sqe  SQE
		want int32
	}{
		{"write", SQE{Opcode: OpWrite, FD: int32(f.Fd()), Addr: uint64(uintptr(unsafe.Pointer(&data[0]))), Len: uint32(len(data))}, int32(len(data))},
		{"fsync", SQE{Opcode: OpFsync, FD: int32(f.Fd())}, 0},
		{"open a file", SQE{Opcode: opOpenat, FD: unix.AT_FDCWD, Addr: uint64(uintptr(unsafe.Pointer(&path[0])))}, -int32(unix.EACCES)},
		{"open a socket", SQE{Opcode: opSocket, FD: unix.AF_UNIX, Off: unix.SOCK_STREAM}, -int32(unix.EACCES)},
		{"nothing", SQE{Opcode: opNop}, -int32(unix.EACCES)},
	} {
		*r.Next() = c.sqe
		if err := r.Submit(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_, res, ok := r.Completion()
		for !ok { // it may take a moment: the eventfd tells
			r.Arm()
			if _, res, ok = r.Completion(); !ok {
				var count [8]byte
				if _, err := unix.Read(event, count[:]); err != nil {
					t.Fatal(err)
				}
				_, res, ok = r.Completion()
			}
		}
		if res != c.want {
			t.Errorf("%s: %d, want %d", c.name, res, c.want)
		}
	}
	fd := int32(event)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerEventFD, uintptr(unsafe.Pointer(&fd)), 1, 0, 0); errno != unix.EACCES {
		t.Errorf("io_uring_register: %v", errno)
	}
}
