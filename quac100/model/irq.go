package model

import (
	"sync"
	"time"

	"quantavirt/quac100/regs"
)

// irq is what INT_* do not show.
type irq struct {
	sent    uint32 // causes whose message is out or waiting, until they stop being pending
	vectors [regs.MSIXVectors]struct {
		last    time.Time
		waiting uint32 // causes held back by INT_THROTTLE
		timer   *time.Timer
	}
	counted  int // responses that wait for a coalesced event
	coalesce *time.Timer
	epoch    int // of the timers; those of an older one do nothing
}

func (q *irq) stopTimers() {
	q.epoch++
	for i := range q.vectors {
		if t := q.vectors[i].timer; t != nil {
			t.Stop()
		}
		q.vectors[i].timer, q.vectors[i].waiting = nil, 0
	}
	if q.coalesce != nil {
		q.coalesce.Stop()
	}
	q.coalesce, q.counted = nil, 0
}

// after runs f under the lock once d has passed, unless the interrupts were reset meanwhile.
func (c *Card) after(d time.Duration, f func()) *time.Timer {
	epoch := c.irq.epoch
	return time.AfterFunc(d, func() {
		c.lock()
		defer c.unlock()
		if c.irq.epoch == epoch && !c.stop {
			f()
		}
	})
}

// wait waits for a condition, after sending what is due: messages go out when the lock is released.
func (c *Card) wait(cond *sync.Cond) {
	if len(c.out) > 0 {
		c.unlock()
		c.lock()
		return
	}
	cond.Wait()
}

// raise latches causes and sends what may be sent.
func (c *Card) raise(causes ...regs.Cause) {
	v := c.get(regs.IntCause)
	for _, x := range causes {
		v |= x.Mask()
	}
	c.set(regs.IntCause, v)
	c.evaluate()
}

// evaluate sends a message for every cause that has become pending: latched, enabled, not masked, and a way out.
func (c *Card) evaluate() {
	var pending uint32
	if c.control()&regs.ControlInt != 0 && c.msix.enabled() && c.master() && c.faults.hang == HangNone {
		pending = c.get(regs.IntCause) & c.get(regs.IntEnable) &^ c.get(regs.IntMask)
	}
	rising := pending &^ c.irq.sent
	c.irq.sent = pending
	var by [regs.MSIXVectors]uint32
	for x := regs.Cause(0); rising>>x != 0; x++ {
		if rising&x.Mask() != 0 {
			by[c.route(x)] |= x.Mask()
		}
	}
	for v, causes := range by {
		if causes != 0 {
			c.message(v, causes)
		}
	}
	if !c.cfg.HostMSIX {
		c.out = append(c.out, c.msix.takePending()...)
	}
}

func (c *Card) route(x regs.Cause) int {
	if c.get(regs.MSIXControl)&regs.MSIXSingleVector != 0 {
		return 0
	}
	reg, shift := x.Route()
	return int(c.get(reg) >> shift & 0xF)
}

// message sends for the causes now, or later if the vector's last message is too young.
func (c *Card) message(v int, causes uint32) {
	s := &c.irq.vectors[v]
	if s.timer != nil {
		s.waiting |= causes
		return
	}
	gap := time.Duration(c.get(regs.IntThrottle)&0xFFFF) * time.Microsecond
	if since := time.Since(s.last); gap > 0 && since < gap {
		s.waiting = causes
		s.timer = c.after(gap-since, func() {
			s.timer = nil
			due := s.waiting & c.irq.sent
			if s.waiting = 0; due != 0 {
				c.send(v, due)
			}
		})
		return
	}
	c.send(v, causes)
}

func (c *Card) send(v int, causes uint32) {
	c.irq.vectors[v].last = time.Now()
	auto := causes & c.get(regs.IntAutoClr)
	c.set(regs.IntCause, c.get(regs.IntCause)&^auto)
	c.irq.sent &^= auto
	c.perf.irqSent++
	if c.faults.dropInterrupts != 0 {
		if c.faults.dropInterrupts > 0 {
			c.faults.dropInterrupts--
		}
		return
	}
	if c.cfg.HostMSIX {
		c.out = append(c.out, v)
		return
	}
	c.msix.pend(v)
}

// responded counts a posted response whose command asked for an interrupt.
func (c *Card) responded(status regs.RespStatus) {
	co := regs.Coalesce(c.get(regs.IntCoalesce))
	c.irq.counted++
	if co&regs.CoalesceEnable == 0 || status != 0 || c.irq.counted >= co.Count() || co.Micros() == 0 {
		c.responseEvent()
		return
	}
	if c.irq.coalesce == nil {
		c.irq.coalesce = c.after(time.Duration(co.Micros())*time.Microsecond, c.responseEvent)
	}
}

// responseEvent makes one event of all responses counted.
func (c *Card) responseEvent() {
	if c.irq.coalesce != nil {
		c.irq.coalesce.Stop()
		c.irq.coalesce = nil
	}
	if c.irq.counted == 0 {
		return
	}
	merged := c.irq.counted - 1
	if c.get(regs.IntCause)&regs.CauseRspAvail.Mask() != 0 {
		merged++
	}
	c.perf.irqMerged += uint64(merged)
	c.irq.counted = 0
	c.raise(regs.CauseRspAvail)
}

func (c *Card) writeInterrupt(r regs.Reg, v uint32) {
	switch r {
	case regs.IntCause:
		c.set(r, c.get(r)&^v)
	case regs.IntForce:
		c.set(regs.IntCause, c.get(regs.IntCause)|v&regs.Causes)
	case regs.IntEnable, regs.IntMask, regs.IntAutoClr:
		c.set(r, v)
	case regs.MSIXControl:
		c.set(r, v&regs.MSIXSingleVector)
	case regs.IntCoalesce:
		c.set(r, v&0x80FFFFFF)
		if c.irq.counted > 0 && v&uint32(regs.CoalesceEnable) == 0 {
			c.responseEvent()
		}
	case regs.IntThrottle:
		c.set(r, v&0xFFFF)
	default: // routes
		c.set(r, v)
	}
	c.evaluate()
}

// msix is the MSI-X table and what the configuration space says about it.
type msix struct {
	control uint16
	table   [regs.MSIXVectors][regs.MSIXEntry / 4]uint32
	pending uint32
}

func (m *msix) reset() {
	*m = msix{control: regs.MSIXVectors - 1}
	for i := range m.table {
		m.table[i][3] = regs.MSIXEntryMasked
	}
}

func (m *msix) enabled() bool { return m.control&regs.MSIXControlEnable != 0 }

func (m *msix) read(off uint64) uint32 {
	switch {
	case off < regs.MSIXTable+regs.MSIXVectors*regs.MSIXEntry:
		i := (off - regs.MSIXTable) / 4
		return m.table[i/4][i%4]
	case off == regs.MSIXPBA:
		return m.pending
	}
	return 0
}

// write stores to the table; it reports whether a pending vector may have been unmasked.
func (m *msix) write(off uint64, v uint32) bool {
	if off >= regs.MSIXTable+regs.MSIXVectors*regs.MSIXEntry {
		return false
	}
	i := (off - regs.MSIXTable) / 4
	switch i % 4 {
	case 0:
		v &^= 3
	case 3:
		v &= regs.MSIXEntryMasked
	}
	m.table[i/4][i%4] = v
	return true
}

func (m *msix) pend(v int) { m.pending |= 1 << v }

// takePending returns the pending vectors that are not masked, and clears them.
func (m *msix) takePending() []int {
	if m.pending == 0 || !m.enabled() || m.control&regs.MSIXControlMask != 0 {
		return nil
	}
	var out []int
	for v := range m.table {
		if m.pending>>v&1 != 0 && m.table[v][3]&regs.MSIXEntryMasked == 0 {
			m.pending &^= 1 << v
			out = append(out, v)
		}
	}
	return out
}
