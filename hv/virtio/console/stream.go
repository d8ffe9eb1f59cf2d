package console

import (
	"fmt"
	"io"
	"sync"

	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	// maxBuffered is how much waits in each direction of a stream before its writer does.
	maxBuffered = 64 << 10
	// maxWrite is the largest single request that a guest may print; Linux sends 128 KiB.
	maxWrite = 1 << 20
)

// Stream is a named port. One reader at a time is attached to it: what the guest writes
// while nobody is there is lost, as the guest knows.
type Stream struct {
	control *control
	port    int
	rx, tx  virtio.Worker

	mu        sync.Mutex // guards what follows
	changed   sync.Cond
	toGuest   []byte
	toHost    []byte
	attached  bool
	guestOpen bool
}

func newStream(c *control, port int) *Stream {
	s := &Stream{control: c, port: port}
	s.changed.L = &s.mu
	s.rx.Handle, s.rx.Ready = s.receive, s.hasInput
	s.tx.Handle, s.tx.Ready = s.transmit, s.hasRoom
	return s
}

// Attach makes the caller the stream's reader and writer, until Detach. QV_ERR_BUSY
// when there is one.
func (s *Stream) Attach() error {
	s.mu.Lock()
	if s.attached {
		s.mu.Unlock()
		return qverr.New(qverr.Busy, "somebody is attached to this port already")
	}
	s.attached, s.toHost = true, nil
	s.mu.Unlock()
	s.control.attach(s.port, true)
	return nil
}

// Detach ends what Attach began, and Read and Write with it. What was written still
// reaches the guest.
func (s *Stream) Detach() {
	s.mu.Lock()
	s.attached, s.toHost = false, nil
	s.changed.Broadcast()
	s.mu.Unlock()
	s.tx.Wake()
	s.control.attach(s.port, false)
}

// Read waits for what the guest writes. It returns io.EOF after Detach.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for s.attached && len(s.toHost) == 0 {
		s.changed.Wait()
	}
	if !s.attached {
		s.mu.Unlock()
		return 0, io.EOF
	}
	n := copy(p, s.toHost)
	s.toHost = s.toHost[:copy(s.toHost, s.toHost[n:])]
	s.mu.Unlock()
	s.tx.Wake()
	return n, nil
}

// Write sends p to the guest. It waits while the guest does not read.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for rest := p; len(rest) > 0; {
		for s.attached && len(s.toGuest) >= maxBuffered {
			s.changed.Wait()
		}
		if !s.attached {
			return len(p) - len(rest), io.ErrClosedPipe
		}
		n := min(len(rest), maxBuffered-len(s.toGuest))
		s.toGuest = append(s.toGuest, rest[:n]...)
		rest = rest[n:]
		s.rx.Wake()
	}
	return len(p), nil
}

// guestOpened hears whether a program in the guest has the port open. Its driver
// throws away what comes for a port that is not.
func (s *Stream) guestOpened(open bool) {
	s.mu.Lock()
	s.guestOpen = open
	if !open {
		s.drop()
	}
	s.mu.Unlock()
	s.rx.Wake()
}

// reset forgets the guest.
func (s *Stream) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guestOpen = false
	s.drop()
}

// drop throws away what the guest did not read. The lock is held.
func (s *Stream) drop() {
	s.toGuest = nil
	s.changed.Broadcast()
}

func (s *Stream) hasInput() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guestOpen && len(s.toGuest) > 0
}

func (s *Stream) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.attached || len(s.toHost) < maxBuffered
}

func (s *Stream) receive(c *virtio.Chain) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := c.CopyIn(s.toGuest)
	s.toGuest = s.toGuest[:copy(s.toGuest, s.toGuest[n:])]
	s.changed.Broadcast()
	return uint32(n), nil
}

func (s *Stream) transmit(c *virtio.Chain) (uint32, error) {
	n := virtio.Len(c.Read)
	if n > maxWrite {
		return 0, fmt.Errorf("%w: console: %d bytes at once: %d are possible", virtio.ErrDriver, n, maxWrite)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.attached {
		return 0, nil
	}
	for _, b := range c.Read {
		s.toHost = append(s.toHost, b...)
	}
	s.changed.Broadcast()
	return 0, nil
}
