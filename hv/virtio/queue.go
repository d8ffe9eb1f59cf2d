package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"quantavirt/hv/memory"
)

// MaxQueueSize is the largest queue offered. A chain is never longer than the
// queue, so it also bounds what one request can refer to.
const MaxQueueSize = 256

// Descriptor flags, section 2.7.5.
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

const (
	descSize         = 16
	availNoInterrupt = 1
	usedNoNotify     = 1
)

// ErrDriver says that the guest's driver broke the rules of the specification.
// The device stops until it is reset.
var ErrDriver = errors.New("driver broke the virtqueue")

func driverError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDriver, fmt.Sprintf(format, args...))
}

// ring is the rings of a queue in guest memory, found and checked once.
type ring struct {
	desc  []byte // 16 bytes for each descriptor
	avail []byte // flags, idx, ring[size], used_event
	used  []byte // flags, idx, {id, len}[size], avail_event
}

// Queue is the device side of one split virtqueue. Its methods may not be called
// concurrently; Worker adds what is needed for that.
type Queue struct {
	mem      *memory.Memory
	size     uint16
	eventIdx bool
	indirect bool
	ring     ring

	nextAvail uint16 // the next entry of the available ring to take
	nextUsed  uint16 // the next entry of the used ring to fill
	signalled uint16 // nextUsed when the guest was interrupted last
	fresh     bool   // no interrupt was sent yet, signalled means nothing
	fenceWord atomic.Uint32

	// Layout is where the rings are, for vhost.
	Layout Layout
	// Kick is readable when the guest says that there is work.
	Kick *Event
	// Interrupt interrupts the guest; InterruptFD is an eventfd that does the same,
	// or -1 when the driver wants no interrupts.
	Interrupt   func()
	InterruptFD int
}

// Layout is where a queue is in guest memory.
type Layout struct {
	Size              uint16
	Desc, Avail, Used uint64 // guest physical addresses
}

// NewQueue checks a layout that the driver gave and makes the queue.
func NewQueue(mem *memory.Memory, l Layout, features uint64) (*Queue, error) {
	if l.Size == 0 || l.Size > MaxQueueSize || l.Size&(l.Size-1) != 0 {
		return nil, driverError("queue size %d", l.Size)
	}
	if l.Desc%16 != 0 || l.Avail%2 != 0 || l.Used%4 != 0 {
		return nil, driverError("misaligned rings %#x %#x %#x", l.Desc, l.Avail, l.Used)
	}
	q := &Queue{mem: mem, size: l.Size, Layout: l, fresh: true, InterruptFD: -1,
		eventIdx: features&FeatureEventIdx != 0, indirect: features&FeatureIndirect != 0}
	for _, part := range []struct {
		into *[]byte
		gpa  uint64
		n    uint64
	}{
		{&q.ring.desc, l.Desc, descSize * uint64(l.Size)},
		{&q.ring.avail, l.Avail, 6 + 2*uint64(l.Size)},
		{&q.ring.used, l.Used, 6 + 8*uint64(l.Size)},
	} {
		s, err := mem.Slice(part.gpa, part.n)
		if err != nil {
			return nil, driverError("ring outside of memory: %v", err)
		}
		*part.into = s
	}
	return q, nil
}

// Size is the number of descriptors.
func (q *Queue) Size() int { return int(q.size) }

// Chain is one request: the buffers of a descriptor chain. The buffers are guest
// memory; the guest may change their content at any time.
type Chain struct {
	Read  [][]byte // what the driver wrote for the device, in order
	Write [][]byte // what the device may fill, in order
	head  uint16
	count int
}

// Pop takes the next request. It returns false when there is none, and ErrDriver
// when the guest broke the rules. The chain's slices are reused.
func (q *Queue) Pop(c *Chain) (bool, error) {
	idx := load16(q.ring.avail[2:])
	pending := idx - q.nextAvail
	if pending == 0 {
		return false, nil
	}
	if pending > q.size {
		return false, driverError("available index went from %d to %d in a queue of %d", q.nextAvail, idx, q.size)
	}
	head := load16(q.ring.avail[4+2*int(q.nextAvail%q.size):])
	c.Read, c.Write, c.head, c.count = c.Read[:0], c.Write[:0], head, 0
	if err := q.walk(c, q.ring.desc, head, q.indirect); err != nil {
		return false, err
	}
	q.nextAvail++
	return true, nil
}

// Unpop puts the request that was taken last back into the available ring. None may
// have been taken since.
func (q *Queue) Unpop() { q.nextAvail-- }

// walk follows a chain through a table of descriptors, the queue's own or an
// indirect one.
func (q *Queue) walk(c *Chain, table []byte, i uint16, indirect bool) error {
	n := len(table) / descSize
	for {
		if int(i) >= n {
			return driverError("descriptor %d of %d", i, n)
		}
		// Copied once: what is checked is what is used.
		var d [descSize]byte
		copy(d[:], table[int(i)*descSize:])
		addr, length := binary.LittleEndian.Uint64(d[0:]), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
		if flags&descIndirect != 0 {
			if !indirect || flags&descNext != 0 {
				return driverError("indirect descriptor where none may be")
			}
			return q.walkIndirect(c, addr, length)
		}
		// Counting, rather than remembering what was seen, ends a loop.
		if c.count++; c.count > int(q.size) {
			return driverError("chain longer than the queue of %d", q.size)
		}
		if err := q.addBuffer(c, addr, length, flags&descWrite != 0); err != nil {
			return err
		}
		if flags&descNext == 0 {
			return nil
		}
		i = next
	}
}

func (q *Queue) walkIndirect(c *Chain, addr uint64, length uint32) error {
	if length == 0 || length%descSize != 0 || length > descSize*uint32(q.size) {
		return driverError("indirect table of %d bytes", length)
	}
	table, err := q.mem.Slice(addr, uint64(length))
	if err != nil {
		return driverError("indirect table: %v", err)
	}
	return q.walk(c, table, 0, false)
}

func (q *Queue) addBuffer(c *Chain, addr uint64, length uint32, write bool) error {
	if length == 0 {
		return nil
	}
	buf, err := q.mem.Slice(addr, uint64(length))
	if err != nil {
		return driverError("buffer: %v", err)
	}
	if write {
		c.Write = append(c.Write, buf)
		return nil
	}
	if len(c.Write) > 0 {
		return driverError("device-readable buffer after a device-writable one")
	}
	c.Read = append(c.Read, buf)
	return nil
}

// Push gives a request back with n bytes written to its Write buffers.
func (q *Queue) Push(c *Chain, n uint32) {
	q.Fill(c, n)
	q.Publish()
}

// Fill prepares what Push does; the guest sees all that was filled, and at once,
// with Publish.
func (q *Queue) Fill(c *Chain, n uint32) {
	entry := q.ring.used[4+8*int(q.nextUsed%q.size):]
	binary.LittleEndian.PutUint32(entry, uint32(c.head))
	binary.LittleEndian.PutUint32(entry[4:], n)
	q.nextUsed++
}

// Publish shows the guest what was filled.
func (q *Queue) Publish() {
	// The entry must be visible before the index; x86 keeps the order of
	// stores, and store16 keeps the compiler from changing it.
	store16(q.ring.used[2:], q.nextUsed)
}

// NeedsInterrupt tells whether the guest wants to hear of what was pushed since
// it was asked last.
func (q *Queue) NeedsInterrupt() bool {
	q.fence()
	old, first := q.signalled, q.fresh
	q.signalled, q.fresh = q.nextUsed, false
	if !q.eventIdx {
		return old != q.nextUsed && load16(q.ring.avail)&availNoInterrupt == 0
	}
	if first {
		return true
	}
	event := load16(q.ring.avail[4+2*int(q.size):])
	return q.nextUsed-event-1 < q.nextUsed-old
}

// Pending tells whether there is a request to pop.
func (q *Queue) Pending() bool { return load16(q.ring.avail[2:]) != q.nextAvail }

// EnableKick asks the guest to say when there is work, and tells whether some came
// meanwhile, which it will not say.
func (q *Queue) EnableKick() bool {
	if q.eventIdx {
		store16(q.ring.used[4+8*int(q.size):], q.nextAvail)
	} else {
		store16(q.ring.used, 0)
	}
	q.fence()
	return q.Pending()
}

// DisableKick spares the guest the exit while the device looks by itself. With
// event indexes nothing needs to be done: the event lies behind.
func (q *Queue) DisableKick() {
	if !q.eventIdx {
		store16(q.ring.used, usedNoNotify)
	}
}

// State is what must be carried over when somebody else goes on with the queue.
func (q *Queue) State() (nextAvail uint16) { return q.nextAvail }

// SetState goes on where somebody else (vhost) stopped: all taken requests were
// given back.
func (q *Queue) SetState(nextAvail uint16) {
	q.nextAvail = nextAvail
	q.nextUsed = load16(q.ring.used[2:])
	q.signalled = q.nextUsed
}

// load16 and store16 are single accesses to memory that the guest shares.
//
//go:noinline
func load16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }

//go:noinline
func store16(b []byte, v uint16) { binary.LittleEndian.PutUint16(b, v) }

// fence orders a store before a later load, which x86 does not do by itself: a
// locked instruction is a full barrier. The word is the queue's own: one for all
// would travel between the processors.
func (q *Queue) fence() { q.fenceWord.Add(1) }

// CopyOut copies from the chain's readable buffers, from byte off on, and returns
// how much there was.
func (c *Chain) CopyOut(p []byte, off int) int {
	n := 0
	for _, b := range c.Read {
		if off >= len(b) {
			off -= len(b)
			continue
		}
		n += copy(p[n:], b[off:])
		off = 0
		if n == len(p) {
			break
		}
	}
	return n
}

// CopyIn copies p to the chain's writable buffers and returns how much fitted.
func (c *Chain) CopyIn(p []byte) int {
	n := 0
	for _, b := range c.Write {
		if n += copy(b, p[n:]); n == len(p) {
			break
		}
	}
	return n
}

// Skip drops the first n bytes of iov. It changes the slice it is given.
func Skip(iov [][]byte, n int) [][]byte {
	for len(iov) > 0 && n >= len(iov[0]) {
		n -= len(iov[0])
		iov = iov[1:]
	}
	if n > 0 && len(iov) > 0 {
		iov[0] = iov[0][n:]
	}
	return iov
}

// Len is the number of bytes in iov.
func Len(iov [][]byte) int {
	n := 0
	for _, b := range iov {
		n += len(b)
	}
	return n
}
