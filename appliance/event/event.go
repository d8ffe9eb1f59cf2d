// Package event tells the parts of the daemon what happened in the others.
package event

import (
	"sync"
	"time"
)

// Event is one thing that happened.
type Event struct {
	Time   time.Time
	Kind   string // e.g. "vm.state", "task.ended"
	Object string // e.g. "vms/web"
	Data   any
}

// Bus hands every event to every subscriber. The zero value is ready.
type Bus struct {
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// Subscription receives events on C until it is closed. A subscriber that does
// not keep up loses events; Lost counts them.
type Subscription struct {
	C    <-chan Event
	c    chan Event
	bus  *Bus
	lost int
}

// Subscribe begins to receive; buffer is how far the subscriber may lag.
func (b *Bus) Subscribe(buffer int) *Subscription {
	c := make(chan Event, buffer)
	s := &Subscription{C: c, c: c, bus: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

// Close ends the subscription and closes C.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if _, ok := s.bus.subs[s]; ok {
		delete(s.bus.subs, s)
		close(s.c)
	}
}

// Lost is the number of events dropped so far.
func (s *Subscription) Lost() int {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	return s.lost
}

// Publish never blocks.
func (b *Bus) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		select {
		case s.c <- e:
		default:
			s.lost++
		}
	}
}
