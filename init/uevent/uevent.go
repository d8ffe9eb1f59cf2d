// Package uevent listens to what the kernel says about devices
// (NETLINK_KOBJECT_UEVENT), so that nothing has to be polled for.
package uevent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Event is one message of the kernel.
type Event struct {
	Action string            // add, remove, change, bind, …
	Path   string            // below /sys
	Env    map[string]string // SUBSYSTEM, MODALIAS, DEVNAME, …
}

// Parse reads a message: "ACTION@PATH", then NUL-terminated KEY=VALUE pairs.
func Parse(msg []byte) (Event, bool) {
	head, rest, _ := bytes.Cut(msg, []byte{0})
	action, path, ok := bytes.Cut(head, []byte{'@'})
	if !ok || len(action) == 0 {
		return Event{}, false
	}
	e := Event{Action: string(action), Path: string(path), Env: make(map[string]string)}
	for pair := range bytes.SplitSeq(rest, []byte{0}) {
		if k, v, ok := bytes.Cut(pair, []byte{'='}); ok {
			e.Env[string(k)] = string(v)
		}
	}
	return e, true
}

// Lost is the Action of an event that stands for any number that did not fit
// into the socket's buffer: look at everything again.
const Lost = "lost"

// Listener hands events to its subscribers. See Listen.
type Listener struct {
	file *os.File

	mu   sync.Mutex
	subs map[int]func(Event)
	next int
}

const (
	bufferSize = 1 << 20
	groupFrom  = 1 // the kernel's own messages, not those of a device manager
)

// Listen opens the socket: what happens from now on is not missed. Run reads it.
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open the socket for device events: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupFrom}); err != nil {
		_ = unix.Close(fd)
		return nil, qverr.New(qverr.CodeOf(err), "listen to device events: %w", err)
	}
	return &Listener{file: os.NewFile(uintptr(fd), "uevent"), subs: make(map[int]func(Event))}, nil
}

// Run hands out events until ctx ends.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.file.Close() })
	defer stop()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return qverr.New(qverr.Generic, "device events: %w", err)
	}
	buf := make([]byte, 16<<10)
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		if err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return qverr.New(qverr.CodeOf(err), "device events: %w", err)
		}
		switch {
		case errors.Is(rerr, unix.ENOBUFS):
			l.Publish(Event{Action: Lost})
		case errors.Is(rerr, unix.EINTR):
		case rerr != nil:
			return qverr.New(qverr.CodeOf(rerr), "device events: %w", rerr)
		default:
			// Only the kernel has port 0.
			if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
				continue
			}
			if e, ok := Parse(buf[:n]); ok {
				l.Publish(e)
			}
		}
	}
}

// Subscribe has fn called for every event until cancel. fn must not block.
func (l *Listener) Subscribe(fn func(Event)) (cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.next
	l.next++
	l.subs[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, id)
	}
}

// Publish hands an event to all subscribers.
func (l *Listener) Publish(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.subs {
		fn(e)
	}
}
