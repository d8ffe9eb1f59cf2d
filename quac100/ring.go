package quac100

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// ringSize is the number of entries of either ring; one slot stays free, so as
// many commands may be outstanding as the response ring can hold.
const (
	ringSize    = 256
	outstanding = ringSize - 1
)

// ring is the pair of queues. Submission is serialised by mu; one goroutine
// reads responses.
type ring struct {
	bus      Bus
	cmds     Buffer
	rsps     Buffer
	slots    chan struct{} // one token for each command that may be sent
	wakeup   chan struct{}
	stopped  chan struct{}
	finished sync.WaitGroup

	mu      sync.Mutex
	tail    int
	nextTag uint32
	waiting map[uint32]chan answer
	dead    error

	// Owned by the reading goroutine.
	head  int
	phase regs.RespFlags
}

type answer struct {
	rsp regs.Response
	err error
}

func newRing(bus Bus) (*ring, error) {
	r := &ring{
		bus: bus, phase: regs.RespPhase,
		slots: make(chan struct{}, outstanding), wakeup: make(chan struct{}, 1), stopped: make(chan struct{}),
		waiting: make(map[uint32]chan answer, outstanding),
	}
	for range outstanding {
		r.slots <- struct{}{}
	}
	var err error
	if r.cmds, err = bus.AllocDMA(ringSize * regs.CommandSize); err != nil {
		return nil, err
	}
	if r.rsps, err = bus.AllocDMA(ringSize * regs.ResponseSize); err != nil {
		return nil, errors.Join(err, bus.FreeDMA(r.cmds))
	}
	r.finished.Go(r.read)
	return r, nil
}

// start tells the card where the rings lie and enables them, responses first.
func (r *ring) start() error {
	for _, w := range []struct {
		reg regs.Reg
		v   uint32
	}{
		{regs.RSPQBaseLo, uint32(r.rsps.IOVA)}, {regs.RSPQBaseHi, uint32(r.rsps.IOVA >> 32)}, {regs.RSPQSize, ringSize},
		{regs.CMDQBaseLo, uint32(r.cmds.IOVA)}, {regs.CMDQBaseHi, uint32(r.cmds.IOVA >> 32)}, {regs.CMDQSize, ringSize},
		{regs.CMDQMaxInflight, outstanding},
		{regs.RSPQCtrl, regs.QueueEnable}, {regs.CMDQCtrl, regs.QueueEnable},
	} {
		r.bus.Write32(w.reg, w.v)
	}
	if r.bus.Read32(regs.CMDQCtrl)&regs.QueueEnable == 0 {
		return qverr.New(qverr.QUACRingInit, "the card refuses the rings: CMDQ_ERR %#x, RSPQ_ERR %#x",
			r.bus.Read32(regs.CMDQErr), r.bus.Read32(regs.RSPQErr))
	}
	return nil
}

// submit sends a command and waits for its response. Once sent, it waits until
// the card answered whatever happens to ctx, because the buffers are the
// card's until then; the card answers within CMDQ_TIMEOUT_MS.
func (r *ring) submit(ctx context.Context, cmd *regs.Command) (regs.Response, error) {
	select {
	case <-r.slots:
	case <-ctx.Done():
		return regs.Response{}, qverr.New(qverr.Timeout, "waiting for a place in the card's ring: %w", ctx.Err())
	}
	done := make(chan answer, 1)
	r.mu.Lock()
	if r.dead != nil {
		r.mu.Unlock()
		r.slots <- struct{}{}
		return regs.Response{}, r.dead
	}
	r.nextTag++
	cmd.Tag, cmd.Flags = r.nextTag, cmd.Flags|regs.FlagIRQ
	r.waiting[cmd.Tag] = done
	cmd.Put(r.cmds.Bytes[r.tail*regs.CommandSize:])
	r.tail = (r.tail + 1) % ringSize
	r.bus.Write32(regs.CMDQTail, uint32(r.tail))
	r.mu.Unlock()

	limit := time.NewTimer(2 * commandTimeout)
	defer limit.Stop()
	select {
	case a := <-done:
		if a.err == nil {
			r.slots <- struct{}{}
		}
		return a.rsp, a.err
	case <-limit.C:
		err := qverr.New(qverr.QUACWatchdog, "the card did not answer %s within %s", cmd.Opcode, 2*commandTimeout)
		r.abort(err)
		return regs.Response{}, err
	}
}

// wake tells the reader that responses may be there.
func (r *ring) wake() {
	select {
	case r.wakeup <- struct{}{}:
	default: // it is already going to look
	}
}

// read hands responses to their callers. After the phase bit says "old" it
// moves RSPQ_HEAD; a response after that makes a new interrupt, so that no
// wake-up is lost (section 8, rule 4).
func (r *ring) read() {
	for {
		select {
		case <-r.stopped:
			return
		case <-r.wakeup:
		}
		moved := false
		for r.next() {
			moved = true
		}
		if moved {
			r.bus.Write32(regs.RSPQHead, uint32(r.head))
		}
	}
}

// next takes one response off the ring, false if there is none.
func (r *ring) next() bool {
	entry := r.rsps.Bytes[r.head*regs.ResponseSize:][:regs.ResponseSize]
	_, flags := regs.SplitTail(atomic.LoadUint32((*uint32)(unsafe.Pointer(&entry[regs.ResponseTail]))))
	if flags&regs.RespPhase != r.phase {
		return false
	}
	rsp, err := regs.ParseResponse(entry)
	if r.head++; r.head == ringSize {
		r.head, r.phase = 0, r.phase^regs.RespPhase
		r.bus.Write32(regs.RSPQHead, 0)
	} else if r.head == ringSize/2 {
		r.bus.Write32(regs.RSPQHead, uint32(r.head))
	}
	r.mu.Lock()
	done := r.waiting[rsp.Tag]
	delete(r.waiting, rsp.Tag)
	r.mu.Unlock()
	if done != nil { // an unknown tag is the card's mistake; nobody waits
		done <- answer{rsp, err}
	}
	return true
}

// abort answers everything in flight with err and refuses what comes.
func (r *ring) abort(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead == nil {
		r.dead = err
	}
	for tag, done := range r.waiting {
		delete(r.waiting, tag)
		done <- answer{err: r.dead}
	}
}

// drain waits until nothing is in flight, for a limited time, and refuses what
// comes.
func (r *ring) drain(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for range outstanding {
		select {
		case <-r.slots:
		case <-timer.C:
			r.abort(qverr.New(qverr.QUACNotFound, "the card is given back"))
			return
		}
	}
}

// close frees the rings; the card must not write any more.
func (r *ring) close() {
	r.abort(qverr.New(qverr.QUACNotFound, "the card is given back"))
	close(r.stopped)
	r.finished.Wait()
	_ = r.bus.FreeDMA(r.cmds)
	_ = r.bus.FreeDMA(r.rsps)
}
