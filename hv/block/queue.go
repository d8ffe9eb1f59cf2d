package block

import (
	"errors"

	"quantavirt/hv/block/uring"
	"quantavirt/internal/qverr"
)

// Op is what a Request asks for: a method of Device.
type Op uint8

// The operations.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpDiscard
	OpWriteZeroes
)

// Request is one operation of a Queue. It and what IOV refers to belong to the
// queue from Submit until Done returns it; it may then be used again.
type Request struct {
	Op      Op
	Durable bool     // a write is on the medium when it is done (forced unit access)
	Unmap   bool     // of OpWriteZeroes
	IOV     [][]byte // of OpRead and OpWrite
	Off     int64
	N       int64 // bytes of OpDiscard and OpWriteZeroes
	Err     error // the result
	Owner   any   // is not touched

	next *Request
	vec  vector
}

// Queue works on requests of one goroutine, many at a time. Which of them is done
// first is not defined: who wants an order waits. It is made by NewQueue.
type Queue interface {
	// Submit takes a request; Commit lets all that were taken begin.
	Submit(*Request)
	Commit()
	// Done returns a request that is done, or nil.
	Done() *Request
	// Arm has the next request that is done signal the eventfd, and tells whether one
	// is done already, which may not. Disarm spares the signals.
	Arm() bool
	Disarm()
	// Close frees the queue. All requests must be done.
	Close()
}

// QueueOptions of NewQueue.
type QueueOptions struct {
	// Depth is the most requests under way at once, a power of two up to 4096.
	Depth int
	// Threads is the most that wait in system calls at once where there is no
	// io_uring; at least 1.
	Threads int
	// EventFD is signalled as Arm says.
	EventFD int
}

// NewQueue makes a queue on a disk: of io_uring if the disk is a Raw and the kernel
// has it, of goroutines that call the disk's methods otherwise.
func NewQueue(d Device, o QueueOptions) (Queue, error) {
	raw, ok := d.(*Raw)
	if !ok {
		return newPool(d, o), nil
	}
	ring, err := uring.New(uint32(o.Depth), o.EventFD)
	if errors.Is(err, errors.ErrUnsupported) {
		return &inlineQueue{Queue: newPool(raw, o), raw: raw}, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "queue of disk %s: %w", raw.file.Name(), err)
	}
	return &inlineQueue{Queue: newRingQueue(raw, ring, o), raw: raw}, nil
}

// list is requests in the order in which they came.
type list struct{ first, last *Request }

func (l *list) push(r *Request) {
	r.next = nil
	if l.last == nil {
		l.first = r
	} else {
		l.last.next = r
	}
	l.last = r
}

func (l *list) pop() *Request {
	r := l.first
	if r == nil {
		return nil
	}
	if l.first = r.next; l.first == nil {
		l.last = nil
	}
	r.next = nil
	return r
}

// join moves all of other behind l.
func (l *list) join(other *list) {
	switch {
	case other.first == nil:
		return
	case l.last == nil:
		*l = *other
	default:
		l.last.next, l.last = other.first, other.last
	}
	*other = list{}
}
