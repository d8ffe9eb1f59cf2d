package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// queue is the pair of rings behind its registers. The indices are in the registers themselves.
type queue struct {
	halted    regs.HaltReason
	rspHalted bool
	fetching  uint64 // changes whenever entries being fetched must not count
	reserved  uint32 // RSPQ index after the entry being written; RSPQ_TAIL follows once it is visible
	phase     bool
	pending   []*command // fetched, not started
	jobs      []*command // started, no worker has it yet
	running   map[*command]struct{}
	results   []*result // finished, not posted
	inflight  int       // fetched, unanswered
	fence     *command  // the started command that all later ones wait for
	posting   bool
	stalled   bool
	stallFrom time.Time
	busyFrom  time.Time
}

type cmdState uint8

const (
	cmdWaiting  cmdState = iota
	cmdRunning           // may still be aborted
	cmdWriting           // its result counts
	cmdAnswered          // a response exists, or the command was dropped
)

// command is one fetched entry.
type command struct {
	regs.Command
	op      *op
	gen     uint64
	state   cmdState
	fetched time.Time
	cancel  chan struct{} // closed when the command needs no result any more
	timer   *time.Timer
}

func (m *command) fence() bool {
	return m.Flags&regs.FlagFence != 0 || m.op != nil && m.op.fence
}

type result struct {
	cmd  *command
	resp regs.Response
}

func (c *Card) enabled(ctrl regs.Reg) bool { return c.get(ctrl)&regs.QueueEnable != 0 }

// busOn reports whether all switches that DMA needs are on.
func (c *Card) busOn() bool {
	return c.master() && c.control()&regs.ControlDMA != 0 && c.get(regs.DMAControl)&regs.DMAEnable != 0
}

// mayFetch reports whether the switches and the state let the command ring run.
func (c *Card) mayFetch() bool {
	switch c.phase {
	case phaseOK, phaseError, phaseZeroized:
	default:
		return false
	}
	return c.busOn() && c.control()&regs.ControlEnable != 0 && c.enabled(regs.CMDQCtrl) && c.enabled(regs.RSPQCtrl)
}

func (c *Card) halt(reason regs.HaltReason) {
	if c.queue.halted == regs.HaltNone {
		c.queue.halted = reason
	}
	c.queue.fetching++
}

func (c *Card) cmdqStatus() uint32 {
	q := &c.queue
	v := uint32(q.inflight)<<16 | uint32(q.halted)<<8
	head, tail, size := c.get(regs.CMDQHead), c.get(regs.CMDQTail), c.get(regs.CMDQSize)
	on := c.enabled(regs.CMDQCtrl)
	set := func(bit uint32, cond bool) {
		if cond {
			v |= bit
		}
	}
	set(regs.CMDQRunning, c.mayFetch() && q.halted == regs.HaltNone)
	set(regs.CMDQEmpty, head == tail)
	set(regs.CMDQFull, (tail+1)%size == head)
	set(regs.CMDQHalted, q.halted != regs.HaltNone)
	set(regs.CMDQDraining, !on && q.inflight > 0)
	set(regs.CMDQStalled, q.stalled)
	set(regs.CMDQPaused, on && !c.mayFetch())
	return v
}

func (c *Card) rspqFull() bool {
	return (c.queue.reserved+1)%c.get(regs.RSPQSize) == c.get(regs.RSPQHead)
}

func (c *Card) rspqStatus() uint32 {
	var v uint32
	set := func(bit uint32, cond bool) {
		if cond {
			v |= bit
		}
	}
	set(regs.RSPQRunning, c.enabled(regs.RSPQCtrl) && !c.queue.rspHalted)
	set(regs.RSPQEmpty, c.get(regs.RSPQHead) == c.queue.reserved)
	set(regs.RSPQFull, c.rspqFull())
	set(regs.RSPQHalted, c.queue.rspHalted)
	set(regs.RSPQPhase, c.queue.phase)
	return v
}

// locked handles a write to a register that only changes while its ring is off.
func (c *Card) locked(info regs.Info, v uint32, ctrl, errs regs.Reg, bit uint32) {
	if c.enabled(ctrl) {
		c.set(errs, c.get(errs)|bit)
		return
	}
	c.set(info.Reg, v)
}

func (c *Card) writeCMDQ(info regs.Info, v uint32) {
	if c.phase == phaseInit {
		return
	}
	switch info.Reg {
	case regs.CMDQBaseLo, regs.CMDQBaseHi, regs.CMDQSize:
		c.locked(info, v, regs.CMDQCtrl, regs.CMDQErr, regs.CMDQErrLocked)
	case regs.CMDQCtrl:
		c.writeCMDQCtrl(v)
	case regs.CMDQTail, regs.CMDQDoorbell:
		if !c.enabled(regs.CMDQCtrl) || v >= c.get(regs.CMDQSize) {
			c.ringError(regs.CMDQErr, regs.CMDQErrBadTail, regs.ErrCMDQ, info.Reg)
			return
		}
		c.set(regs.CMDQTail, v)
		c.fetchC.Signal()
	case regs.CMDQErr:
		c.set(info.Reg, c.get(info.Reg)&^v)
	case regs.CMDQTimeoutMS:
		if v >= regs.TimeoutMinMS && v <= regs.TimeoutMaxMS {
			c.set(info.Reg, v)
		}
	case regs.CMDQMaxInflight:
		if v >= 1 && v <= regs.MaxInFlightHi {
			c.set(info.Reg, v)
			c.fetchC.Signal()
		}
	}
}

// ringError latches a misuse of an index, which is also an ERROR event.
func (c *Card) ringError(errs regs.Reg, bit uint32, e regs.ErrBit, where regs.Reg) {
	c.set(errs, c.get(errs)|bit)
	c.fail(e, uint16(where), 0, 0)
}

// ringOK checks what enabling a ring needs.
func (c *Card) ringOK(baseLo, size regs.Reg) bool {
	base, n := c.get64(baseLo), c.get(size)
	bytes := uint64(n) * regs.CommandSize
	return base != 0 && base%regs.RingAlign == 0 && n >= regs.RingMin && n <= regs.RingMax && n&(n-1) == 0 && base+bytes-1 > base
}

func (c *Card) writeCMDQCtrl(v uint32) {
	q := &c.queue
	bad := func() { c.set(regs.CMDQErr, c.get(regs.CMDQErr)|regs.CMDQErrBadCfg) }
	on := c.enabled(regs.CMDQCtrl)
	switch enable := v&regs.QueueEnable != 0; {
	case enable && !on:
		if !c.ringOK(regs.CMDQBaseLo, regs.CMDQSize) || !c.enabled(regs.RSPQCtrl) ||
			max(c.get(regs.CMDQHead), c.get(regs.CMDQTail)) >= c.get(regs.CMDQSize) {
			bad()
			break
		}
		c.set(regs.CMDQCtrl, regs.QueueEnable)
		c.fetchC.Signal()
	case !enable && on:
		c.set(regs.CMDQCtrl, 0)
		q.fetching++
	}
	if v&regs.QueueAbort != 0 {
		c.abort()
	}
	if v&regs.QueueReset != 0 {
		if c.enabled(regs.CMDQCtrl) || q.inflight > 0 {
			bad()
			return
		}
		c.clearCMDQ()
	}
}

func (c *Card) clearCMDQ() {
	c.set(regs.CMDQHead, 0)
	c.set(regs.CMDQTail, 0)
	c.queue.halted = regs.HaltNone
	c.queue.fetching++
}

func (c *Card) clearRSPQ() {
	c.set(regs.RSPQHead, 0)
	c.set(regs.RSPQTail, 0)
	c.queue.reserved, c.queue.phase, c.queue.rspHalted = 0, true, false
}

func (c *Card) writeRSPQ(info regs.Info, v uint32) {
	if c.phase == phaseInit {
		return
	}
	switch info.Reg {
	case regs.RSPQBaseLo, regs.RSPQBaseHi, regs.RSPQSize:
		c.locked(info, v, regs.RSPQCtrl, regs.RSPQErr, regs.RSPQErrLocked)
	case regs.RSPQCtrl:
		c.writeRSPQCtrl(v)
	case regs.RSPQHead, regs.RSPQDoorbell:
		c.writeRSPQHead(info.Reg, v)
	case regs.RSPQErr:
		c.set(info.Reg, c.get(info.Reg)&^v)
	}
}

func (c *Card) writeRSPQHead(where regs.Reg, v uint32) {
	size, head := c.get(regs.RSPQSize), c.get(regs.RSPQHead)
	used := (c.queue.reserved - head) % size
	if v >= size || (v-head)%size > used {
		c.ringError(regs.RSPQErr, regs.RSPQErrBadHead, regs.ErrRSPQ, where)
		return
	}
	c.set(regs.RSPQHead, v)
	if len(c.queue.results) > 0 {
		c.postC.Signal()
	}
}

func (c *Card) writeRSPQCtrl(v uint32) {
	bad := func() { c.set(regs.RSPQErr, c.get(regs.RSPQErr)|regs.RSPQErrBadCfg) }
	on := c.enabled(regs.RSPQCtrl)
	switch enable := v&regs.QueueEnable != 0; {
	case enable && !on:
		if !c.ringOK(regs.RSPQBaseLo, regs.RSPQSize) || max(c.get(regs.RSPQHead), c.queue.reserved) >= c.get(regs.RSPQSize) {
			bad()
			break
		}
		c.set(regs.RSPQCtrl, regs.QueueEnable)
		c.fetchC.Signal()
	case !enable && on:
		if c.enabled(regs.CMDQCtrl) || c.queue.inflight > 0 {
			bad()
			break
		}
		c.set(regs.RSPQCtrl, 0)
	}
	if v&regs.QueueReset != 0 {
		if c.enabled(regs.RSPQCtrl) || c.queue.inflight > 0 {
			bad()
			return
		}
		c.clearRSPQ()
	}
}
