package balloon

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"quantavirt/hv/virtio"
)

// Tags of section 5.5.6.4, and those that Linux has beside them, by their number.
const (
	tagSwapIn = iota
	tagSwapOut
	tagMajorFaults
	tagMinorFaults
	tagFree
	tagTotal
	tagAvailable
	tagCaches
	tagHugeAllocations
	tagHugeFailures
	tagOOMKills
	tagCount
)

const (
	entrySize = 10 // le16 tag, le64 value, packed
	// maxEntries bounds what is read of one answer; Linux sends 16.
	maxEntries = 64
)

// Statistics are what the guest says of its memory, in bytes or as counts since it
// started. A value that it does not give is 0.
type Statistics struct {
	Time                     time.Time
	Free, Total              uint64 // bytes
	Available, Caches        uint64 // bytes
	SwapIn, SwapOut          uint64 // bytes
	MajorFaults, MinorFaults uint64
	OOMKills                 uint64
}

// statistics serves the statistics queue: its one buffer stays here until it is wanted,
// goes back to the guest and returns filled.
type statistics struct {
	wg sync.WaitGroup

	mu       sync.Mutex // guards what follows, held while guest memory is touched
	changed  sync.Cond
	queue    *virtio.Queue // nil without a driver
	host     virtio.Host
	chain    virtio.Chain
	held     bool
	paused   bool
	stopping bool
	last     *Statistics
	fresh    chan struct{} // closed and replaced when last changes
}

func (s *statistics) init() {
	s.changed.L = &s.mu
	s.fresh = make(chan struct{})
}

func (s *statistics) start(q *virtio.Queue, host virtio.Host) {
	s.mu.Lock()
	s.queue, s.host, s.held, s.stopping, s.last = q, host, false, false, nil
	s.mu.Unlock()
	q.Kick.Rearm()
	q.Kick.Signal() // the buffer may be there already
	s.wg.Go(func() {
		for q.Kick.Wait() {
			if err := s.receive(); err != nil {
				host.NeedsReset(err)
				return
			}
		}
	})
}

func (s *statistics) stop() {
	s.mu.Lock()
	q := s.queue
	s.queue, s.stopping = nil, true
	s.changed.Broadcast()
	s.mu.Unlock()
	if q != nil {
		q.Kick.Interrupt()
		s.wg.Wait()
	}
}

func (s *statistics) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = true
}

func (s *statistics) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	s.changed.Broadcast()
}

// receive takes the buffer that the guest has filled.
func (s *statistics) receive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.paused && !s.stopping {
		s.changed.Wait()
	}
	if s.stopping {
		return nil
	}
	for {
		if s.held {
			if s.queue.Pending() {
				return fmt.Errorf("%w: balloon: a second buffer for statistics", virtio.ErrDriver)
			}
			return nil
		}
		ok, err := s.queue.Pop(&s.chain)
		if err != nil {
			return err
		}
		if ok {
			s.held = true
			s.last = parse(&s.chain)
			close(s.fresh)
			s.fresh = make(chan struct{})
			continue
		}
		if !s.queue.EnableKick() {
			return nil
		}
	}
}

// parse reads what is in a buffer.
func parse(c *virtio.Chain) *Statistics {
	var buf [entrySize * maxEntries]byte
	n := c.CopyOut(buf[:], 0)
	v := &Statistics{Time: time.Now().UTC()}
	fields := [tagCount]*uint64{tagSwapIn: &v.SwapIn, tagSwapOut: &v.SwapOut, tagMajorFaults: &v.MajorFaults,
		tagMinorFaults: &v.MinorFaults, tagFree: &v.Free, tagTotal: &v.Total, tagAvailable: &v.Available, tagCaches: &v.Caches,
		tagOOMKills: &v.OOMKills}
	for i := 0; i+entrySize <= n; i += entrySize {
		tag := binary.LittleEndian.Uint16(buf[i:])
		if int(tag) < len(fields) && fields[tag] != nil {
			*fields[tag] = binary.LittleEndian.Uint64(buf[i+2:])
		}
	}
	return v
}

// ask gives the buffer back, which asks the guest to fill it again.
func (s *statistics) ask(limit time.Duration) *Statistics {
	s.mu.Lock()
	fresh := s.fresh
	if !s.held || s.paused || s.queue == nil {
		defer s.mu.Unlock()
		return s.last
	}
	s.queue.Push(&s.chain, 0)
	s.held = false
	if s.queue.EnableKick() {
		s.queue.Kick.Signal() // it was filled before a kick was asked for
	}
	interrupt := s.queue.NeedsInterrupt()
	q := s.queue
	s.mu.Unlock()
	if interrupt {
		q.Interrupt()
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-fresh:
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
