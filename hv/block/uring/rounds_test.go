package uring_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/block/uring"
)

func newRing(t *testing.T, entries uint32) (*uring.Ring, int) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	r, err := uring.New(entries, fd)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, fd
}

// complete submits and returns the completions, sleeping on the eventfd.
func complete(t *testing.T, r *uring.Ring, eventFD, n int) map[uint64]int32 {
	t.Helper()
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	got := map[uint64]int32{}
	for len(got) < n {
		if user, res, ok := r.Completion(); ok {
			got[user] = res
			continue
		}
		if r.Arm() {
			continue
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(eventFD), Events: unix.POLLIN}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	r.Disarm()
	return got
}

// TestWrap goes round the rings many times, with the ring full.
func TestWrap(t *testing.T) {
	r, eventFD := newRing(t, 4)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	user := uint64(0)
	for range 100 {
		first := user
		for e := r.Next(); e != nil; e = r.Next() {
			e.Opcode, e.FD, e.Len, e.UserData = uring.OpRead, int32(f.Fd()), 0, user
			user++
		}
		if user-first != 4 {
			t.Fatalf("%d entries of 4", user-first)
		}
		for u, res := range complete(t, r, eventFD, 4) {
			if u < first || u >= user || res != 0 {
				t.Fatalf("completion %d with %d", u, res)
			}
		}
	}
}

func TestDrop(t *testing.T) {
	r, eventFD := newRing(t, 4)
	for i := range uint64(3) {
		r.Next().UserData = i
	}
	for i := uint64(2); i < 3; i-- {
		if got, ok := r.Drop(); !ok || got != i {
			t.Errorf("%d, %v", got, ok)
		}
	}
	if _, ok := r.Drop(); ok {
		t.Error("more entries than were made")
	}
	e := r.Next()
	e.Opcode, e.FD, e.UserData = uring.OpFsync, -1, 9
	if got := complete(t, r, eventFD, 1); got[9] != -int32(unix.EBADF) {
		t.Errorf("%v", got)
	}
}

func TestBadSize(t *testing.T) {
	for _, n := range []uint32{0, 3, 8192} {
		if _, err := uring.New(n, -1); err == nil {
			t.Errorf("%d entries were accepted", n)
		}
	}
}
