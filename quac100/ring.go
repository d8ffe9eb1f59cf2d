package quac100

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Life of a slot.
const (
	slotFree      int32 = iota
	slotBusy            // the card has it
	slotClaimed         // its response is being stored
	slotDone            // its caller may look
	slotAbandoned       // its caller has left; the card still has it
)

// slot is a place in the rings, with what its command needs. Slots are made
// once and used again, so that no operation allocates.
type slot struct {
	index int
	state atomic.Int32
	gen   uint32
	cmd   regs.Command
	mem   memory
	rsp   regs.Response
	err   error // instead of a response
	own   waiter
	wait  *waiter // whom to tell: own, or a batch
}

// waiter is told when the last of its slots has its response.
type waiter struct {
	pending atomic.Int32
	ready   chan struct{}
}

func (w *waiter) done() {
	if w.pending.Add(-1) == 0 {
		w.ready <- struct{}{}
	}
}

// ring is the pair of queues. Commands are stored under mu and announced by
// whoever gets the bell; one goroutine reads responses.
type ring struct {
	bus      Bus
	opts     *options
	pool     *pool
	stats    *counters
	cmds     Buffer
	rsps     Buffer
	slots    []slot
	free     chan *slot // in the order of release, so that waiting callers are served in turn
	waiting  atomic.Int32
	inFlight atomic.Int32
	wakeup   chan struct{}
	stopped  chan struct{}
	finished sync.WaitGroup
	broken   func(error) // told of a response that cannot be

	mu   sync.Mutex
	tail int
	dead error         // why nothing is taken
	down chan struct{} // closed while dead

	bell  sync.Mutex
	want  atomic.Uint32 // the tail to announce
	rung  atomic.Uint32
	polls atomic.Bool // the reader looks by itself

	reading sync.Mutex // guards what follows; held while the ring is read
	head    int
	told    int // RSPQ_HEAD as the card knows it
	phase   regs.RespFlags
	quiet   bool          // nothing is read: the card was given up, or a response could not be
	total   atomic.Uint64 // responses read
}

func newRing(bus Bus, o *options, p *pool, st *counters, broken func(error)) (*ring, error) {
	n := o.ring
	r := &ring{
		bus: bus, opts: o, pool: p, stats: st, slots: make([]slot, n-1), free: make(chan *slot, n-1),
		wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), broken: broken, down: make(chan struct{}),
	}
	for i := range r.slots {
		s := &r.slots[i]
		s.index = i
		s.own.ready = make(chan struct{}, 1)
		r.free <- s
	}
	var err error
	if r.cmds, err = bus.AllocDMA(n * regs.CommandSize); err != nil {
		return nil, err
	}
	if r.rsps, err = bus.AllocDMA(n * regs.ResponseSize); err != nil {
		return nil, errors.Join(err, bus.FreeDMA(r.cmds))
	}
	r.finished.Go(r.read)
	return r, nil
}

// start tells the card where the rings lie and enables them, responses first.
// The card has been reset: both rings are empty.
func (r *ring) start() error {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.rsps.Bytes)
	r.head, r.told, r.phase, r.tail = 0, 0, regs.RespPhase, 0
	r.want.Store(0)
	r.rung.Store(0)
	n := uint32(r.opts.ring)
	for _, w := range []struct {
		reg regs.Reg
		v   uint32
	}{
		{regs.RSPQBaseLo, uint32(r.rsps.IOVA)}, {regs.RSPQBaseHi, uint32(r.rsps.IOVA >> 32)}, {regs.RSPQSize, n},
		{regs.CMDQBaseLo, uint32(r.cmds.IOVA)}, {regs.CMDQBaseHi, uint32(r.cmds.IOVA >> 32)}, {regs.CMDQSize, n},
		{regs.CMDQMaxInflight, n - 1},
		{regs.RSPQCtrl, regs.QueueEnable}, {regs.CMDQCtrl, regs.QueueEnable},
	} {
		r.bus.Write32(w.reg, w.v)
	}
	if r.bus.Read32(regs.CMDQCtrl)&regs.QueueEnable == 0 {
		return qverr.New(qverr.QUACRingInit, "the card refuses the rings: CMDQ_ERR %#x, RSPQ_ERR %#x",
			r.bus.Read32(regs.CMDQErr), r.bus.Read32(regs.RSPQErr))
	}
	r.reclaim()
	r.quiet = false
	if r.dead != nil {
		r.dead, r.down = nil, make(chan struct{})
	}
	return nil
}

// acquire waits for a slot. Callers that wait get slots in the order in which
// they came; when too many do, further ones are refused.
func (r *ring) acquire(ctx context.Context) (*slot, error) {
	select {
	case s := <-r.free:
		return s, nil
	default:
	}
	if n := r.waiting.Add(1); int(n) > r.opts.waiting {
		r.waiting.Add(-1)
		r.stats.refused.Add(1)
		return nil, qverr.New(qverr.QUACRingFull, "%d commands are in flight and %d callers wait", len(r.slots), n-1)
	}
	defer r.waiting.Add(-1)
	r.stats.waited.Add(1)
	down := r.downs()
	select {
	case s := <-r.free:
		return s, nil
	case <-down:
		return nil, r.why()
	case <-ctx.Done():
		return nil, qverr.New(qverr.Timeout, "waiting for a place in the card's ring: %w", ctx.Err())
	}
}

// downs is closed when the ring takes nothing any more.
func (r *ring) downs() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// why is the reason for that.
func (r *ring) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead == nil { // it is back by now
		return qverr.New(qverr.Again, "the card was reset")
	}
	return r.dead
}

// release gives back a slot that the card does not have.
func (r *ring) release(s *slot) {
	r.pool.free(&s.mem)
	s.err = nil
	s.state.Store(slotFree)
	r.free <- s
}

// submit stores the slot's command in the ring; ring announces it.
func (r *ring) submit(s *slot) error {
	r.mu.Lock()
	if r.dead != nil {
		err := r.dead
		r.mu.Unlock()
		return err
	}
	s.gen++
	s.cmd.Tag = s.gen<<12 | uint32(s.index)
	s.cmd.Flags |= regs.FlagIRQ
	s.state.Store(slotBusy)
	r.inFlight.Add(1)
	s.cmd.Put(r.cmds.Bytes[r.tail*regs.CommandSize:])
	if r.tail++; r.tail == r.opts.ring {
		r.tail = 0
	}
	r.want.Store(uint32(r.tail))
	r.mu.Unlock()
	return nil
}

// ring announces what was submitted. One caller rings for all that come while
// it does.
func (r *ring) ring() {
	for r.want.Load() != r.rung.Load() {
		if !r.bell.TryLock() {
			return // its holder looks again
		}
		if tail := r.want.Load(); tail != r.rung.Load() {
			r.rung.Store(tail)
			r.bus.Write32(regs.CMDQTail, tail)
			r.stats.doorbells.Add(1)
		}
		r.bell.Unlock()
	}
	if r.mode() == Polling {
		r.wake()
	}
}

// mode is how responses are noticed now.
func (r *ring) mode() Completion {
	if r.polls.Load() {
		return Polling
	}
	return r.opts.completion
}

// await waits until the slot is done. A caller whose ctx ends leaves: the slot
// goes back once the card has answered, because its memory is the card's until
// then.
func (r *ring) await(ctx context.Context, s *slot) error {
	if ctx.Done() == nil {
		<-s.own.ready
		return nil
	}
	select {
	case <-s.own.ready:
		return nil
	case <-ctx.Done():
	}
	if !s.state.CompareAndSwap(slotBusy, slotAbandoned) {
		<-s.own.ready // the response is here this moment
		return nil
	}
	r.stats.abandoned.Add(1)
	return qverr.New(qverr.Timeout, "the card has not answered %s yet: %w", s.cmd.Opcode, ctx.Err())
}

// retire gives back a slot that is done. If the card was given up with the
// command in flight, the slot waits for the reset: the card may still write.
func (r *ring) retire(s *slot) {
	if s.err == nil {
		r.release(s)
		return
	}
	r.mu.Lock()
	lost := r.dead != nil
	if lost {
		s.state.Store(slotAbandoned)
	}
	r.mu.Unlock()
	if !lost {
		r.release(s)
	}
}

// wake tells the reader that responses may be there.
func (r *ring) wake() {
	select {
	case r.wakeup <- struct{}{}:
	default: // it is already going to look
	}
}

// spin is how long the reader looks at the ring after the last response before
// it sleeps until an interrupt; burst is the number of responses at once that
// makes looking worth it.
const (
	spin  = 20 * time.Microsecond
	pause = 50 * time.Microsecond // between looks when nothing else tells
	burst = 2
)

// read hands responses to their callers.
func (r *ring) read() {
	for {
		select {
		case <-r.stopped:
			return
		case <-r.wakeup:
		}
		r.stats.wakes.Add(1)
		for n := r.drain(); r.look(n); {
			n = r.drain()
		}
	}
}

// look reports whether the ring is worth another look, after n responses. It
// waits for the next one for a while: the interrupts that come meanwhile merge
// into one wake-up.
func (r *ring) look(n int) bool {
	mode := r.mode()
	if mode == Interrupts || mode == Adaptive && n < burst {
		return n > 0
	}
	for end := time.Now().Add(spin); r.inFlight.Load() > 0; {
		for range 8 {
			runtime.Gosched()
			if r.visible() {
				r.stats.polled.Add(1)
				return true
			}
		}
		switch late := time.Now().After(end); {
		case late && mode == Adaptive:
			return false
		case late: // a long operation: look less often
			select {
			case <-r.stopped:
				return false
			case <-time.After(pause):
			}
		}
	}
	return false
}

// visible reports whether the next response is in memory.
func (r *ring) visible() bool {
	r.reading.Lock()
	defer r.reading.Unlock()
	_, ok := r.peek()
	return ok
}

func (r *ring) peek() ([]byte, bool) {
	if r.quiet {
		return nil, false
	}
	entry := r.rsps.Bytes[r.head*regs.ResponseSize:][:regs.ResponseSize]
	_, flags := regs.SplitTail(atomic.LoadUint32((*uint32)(unsafe.Pointer(&entry[regs.ResponseTail]))))
	return entry, flags&regs.RespPhase == r.phase
}

// drain takes the responses that are there. After the phase bit says "old" it
// moves RSPQ_HEAD; a response after that makes a new interrupt, so that no
// wake-up is lost (section 8, rule 4).
func (r *ring) drain() (n int) {
	r.reading.Lock()
	defer r.reading.Unlock()
	for {
		entry, ok := r.peek()
		if !ok {
			break
		}
		rsp, err := regs.ParseResponse(entry)
		if err == nil {
			err = r.deliver(&rsp)
		}
		if err != nil {
			r.quiet = true
			r.broken(err)
			return n
		}
		if r.head++; r.head == r.opts.ring {
			r.head, r.phase = 0, r.phase^regs.RespPhase
		}
		n++
		if n%(r.opts.ring/4) == 0 {
			r.tell()
		}
	}
	if n > 0 {
		r.tell()
	}
	r.total.Add(uint64(n))
	return n
}

func (r *ring) tell() {
	if r.told != r.head {
		r.told = r.head
		r.bus.Write32(regs.RSPQHead, uint32(r.head))
	}
}

// deliver gives a response to its slot. A tag that is not in flight, or
// another opcode than was sent, means that the card or the memory is damaged.
func (r *ring) deliver(rsp *regs.Response) error {
	i := int(rsp.Tag & (1<<12 - 1))
	if i >= len(r.slots) {
		return qverr.New(qverr.QUACDMA, "a response has the tag %#x, which was never sent", rsp.Tag)
	}
	s := &r.slots[i]
	if st := s.state.Load(); st != slotBusy && st != slotAbandoned {
		return qverr.New(qverr.QUACDMA, "a response has the tag %#x, which is not in flight", rsp.Tag)
	}
	if s.cmd.Tag != rsp.Tag || s.cmd.Opcode != rsp.Opcode {
		return qverr.New(qverr.QUACDMA, "a response has tag %#x and %s, the command was %#x and %s", rsp.Tag, rsp.Opcode, s.cmd.Tag, s.cmd.Opcode)
	}
	if s.state.CompareAndSwap(slotBusy, slotClaimed) {
		s.rsp, s.err = *rsp, nil
		r.inFlight.Add(-1)
		r.stats.answered(rsp)
		s.state.Store(slotDone)
		s.wait.done()
		return nil
	}
	s.state.Store(slotClaimed) // abandoned meanwhile: nobody else touches it
	r.inFlight.Add(-1)
	r.stats.answered(rsp)
	r.release(s)
	return nil
}

// abort answers everything in flight with err and refuses what comes, until
// start. The memory of what was in flight stays the card's until reclaim.
func (r *ring) abort(err error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead == nil {
		r.dead = err
		close(r.down)
	}
	r.quiet = true
	for i := range r.slots {
		s := &r.slots[i]
		if s.state.CompareAndSwap(slotBusy, slotClaimed) {
			s.err = r.dead
			s.state.Store(slotDone)
			s.wait.done()
			r.stats.dropped.Add(1)
			r.inFlight.Add(-1)
		}
	}
}

// reclaim takes back what the card had before it was reset: it guarantees no
// later write. Called with the locks.
func (r *ring) reclaim() {
	for i := range r.slots {
		s := &r.slots[i]
		if s.state.CompareAndSwap(slotAbandoned, slotClaimed) {
			r.release(s)
		}
	}
	r.inFlight.Store(0)
}

// drained waits until nothing is in flight, for a limited time.
func (r *ring) drained(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for n := range r.slots {
		select {
		case <-r.free:
		case <-timer.C:
			return n == len(r.slots)
		}
	}
	return true
}

// close frees the rings; the card must not write any more.
func (r *ring) close() {
	r.abort(qverr.New(qverr.QUACNotFound, "the card is given back"))
	close(r.stopped)
	r.finished.Wait()
	_ = r.bus.FreeDMA(r.cmds)
	_ = r.bus.FreeDMA(r.rsps)
}
