package virtio

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Event is an eventfd. A goroutine that waits for it costs no thread: the
// runtime's poller watches it, but only from the first Rearm on, so that an event
// that vhost waits for does not wake the poller as well.
type Event struct {
	fd    int
	file  *os.File // nil until Rearm
	count [8]byte  // what Wait read; not a local variable, which would be allocated
}

// NewEvent makes an eventfd.
func NewEvent() (*Event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "eventfd: %w", err)
	}
	return &Event{fd: fd}, nil
}

// FD is the descriptor, for KVM and vhost.
func (e *Event) FD() int { return e.fd }

// Signal makes the event readable.
func (e *Event) Signal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// EAGAIN means that the counter is full: it is readable already.
	_, _ = unix.Write(e.fd, one[:])
}

// Wait blocks until the event is signalled, and clears it. It returns false once
// the event was interrupted. Rearm must have been called, and one goroutine may wait.
func (e *Event) Wait() bool {
	_, err := e.file.Read(e.count[:])
	return err == nil
}

// Drain clears the event without waiting and tells whether it was signalled.
func (e *Event) Drain() bool {
	var count [8]byte
	n, err := unix.Read(e.fd, count[:])
	return err == nil && n == len(count)
}

// Interrupt makes Wait return false, now and later, until Rearm.
func (e *Event) Interrupt() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) }

// Rearm makes Wait possible, and undoes Interrupt.
func (e *Event) Rearm() {
	if e.file == nil {
		e.file = os.NewFile(uintptr(e.fd), "eventfd")
	}
	_ = e.file.SetReadDeadline(time.Time{})
}

// Close closes the descriptor. Nobody may wait for it any more.
func (e *Event) Close() {
	if e.file != nil {
		e.file.Close()
		return
	}
	unix.Close(e.fd)
}
