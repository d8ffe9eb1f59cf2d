package vfiouser

import (
	"errors"
	"fmt"
	"syscall"

	"quantavirt/quac100/model"
)

var errGone = errors.New("the client has left")

// ReadDMA implements model.Host.
func (s *session) ReadDMA(iova uint64, p []byte) error { return s.transfer(iova, p, false) }

// WriteDMA implements model.Host.
func (s *session) WriteDMA(iova uint64, p []byte) error { return s.transfer(iova, p, true) }

// Interrupt implements model.Host.
func (s *session) Interrupt(vector int) { s.irqs.fire(vector) }

func (s *session) transfer(iova uint64, p []byte, write bool) error {
	for len(p) > 0 {
		n, remote, err := s.space.access(iova, p, write)
		if errors.Is(err, model.ErrUnmapped) {
			s.report(iova)
		}
		if err == nil && remote > 0 {
			n = int(min(uint64(remote), dmaChunk, s.maxXfer))
			err = s.message(iova, p[:n], write)
		}
		if err != nil {
			return err
		}
		p, iova = p[n:], iova+uint64(n)
		if iova == 0 && len(p) > 0 {
			return fmt.Errorf("end of the address space: %w", model.ErrUnmapped)
		}
	}
	return nil
}

// report lets the client see an access that is refused here, so that its IOMMU reports a
// fault as for a card in the machine. It reads one byte, also for a write: should the
// address have been mapped just now, nothing happens.
func (s *session) report(iova uint64) {
	_ = s.message(iova, make([]byte, 1), false) // the answer is known: there is nothing
}

// message lets the client carry out an access, and waits for its answer; never called from the read loop.
func (s *session) message(iova uint64, p []byte, write bool) error {
	s.dma.Lock()
	defer s.dma.Unlock()
	id, answer, err := s.expect()
	if err != nil {
		return err
	}
	d := dmaIO{iova: iova, count: uint64(len(p))}
	cmd := cmdDMARead
	if write {
		cmd, d.data = cmdDMAWrite, p
	}
	if err := s.write(header{id: id, cmd: cmd}, d.append(nil)); err != nil {
		s.forget(id)
		return fmt.Errorf("send a DMA message: %w", err)
	}
	r, ok := <-answer
	switch {
	case !ok:
		return errGone
	case r.failed:
		return fmt.Errorf("%#x: client answers %w: %w", iova, syscall.Errno(r.errno), model.ErrUnmapped)
	case write:
		return nil
	}
	got, err := parseDMAIO(r.data)
	if err != nil || len(got.data) < len(p) {
		return fmt.Errorf("%#x: client answers %d bytes of %d", iova, len(r.data), len(p))
	}
	copy(p, got.data)
	return nil
}

// expect registers a message whose answer is waited for.
func (s *session) expect() (uint16, <-chan reply, error) {
	s.wait.Lock()
	defer s.wait.Unlock()
	if s.gone {
		return 0, nil, errGone
	}
	s.nextID++
	c := make(chan reply, 1)
	s.replies[s.nextID] = c
	return s.nextID, c, nil
}

func (s *session) forget(id uint16) {
	s.wait.Lock()
	defer s.wait.Unlock()
	delete(s.replies, id)
}

// deliver hands an answer to who waits for it; others are ignored.
func (s *session) deliver(m *message) {
	s.wait.Lock()
	defer s.wait.Unlock()
	c := s.replies[m.id]
	if c == nil {
		return
	}
	delete(s.replies, m.id)
	c <- reply{m.errno, m.flags&flagError != 0, append([]byte(nil), m.payload...)}
}

// fail ends all waiting: there will be no answers any more.
func (s *session) fail() {
	s.wait.Lock()
	defer s.wait.Unlock()
	s.gone = true
	for id, c := range s.replies {
		close(c)
		delete(s.replies, id)
	}
}
