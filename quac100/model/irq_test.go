package model

import (
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

// quiet checks that no message comes for a moment. Only absence needs a time: nothing announces that nothing happens.
func (r *rig) quiet(what string) {
	r.Helper()
	select {
	case v := <-r.irq:
		r.Errorf("%s: message on vector %d", what, v)
	case <-time.After(3 * time.Millisecond):
	}
}

func TestInterruptRules(t *testing.T) {
	r := running(t, Config{})
	tamper := regs.CauseTamper.Mask()
	force := func() { r.Write32(regs.IntForce, tamper) }
	clear := func() { r.Write32(regs.IntCause, ^uint32(0)) }

	force()
	if v := r.vector(); v != regs.VectorKeys {
		t.Errorf("tamper came on vector %d", v)
	}
	force()
	r.quiet("a cause that is still set")
	clear()
	force()
	r.vector()
	clear()

	r.Write32(regs.IntMask, tamper)
	force()
	r.quiet("a masked cause")
	r.expect(regs.IntCause, tamper)
	r.Write32(regs.IntMask, 0)
	r.vector()
	clear()

	r.Write32(regs.IntEnable, 0)
	force()
	r.quiet("a disabled cause")
	r.Write32(regs.IntEnable, tamper)
	r.vector()
	clear()

	r.Write32(regs.DevControl, uint32(regs.ControlRun&^regs.ControlInt))
	force()
	r.quiet("INT off")
	r.Write32(regs.DevControl, uint32(regs.ControlRun))
	r.vector()
	clear()

	r.WriteConfig(regs.CfgCommand, []byte{2, 0})
	force()
	r.quiet("bus master off")
	r.WriteConfig(regs.CfgCommand, []byte{6, 0})
	r.vector()
	clear()

	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0})
	r.expect(regs.MSIXControl, 0)
	force()
	r.quiet("MSI-X off")
	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80})
	r.vector()
	clear()

	r.Write32(regs.MSIXControl, regs.MSIXSingleVector)
	force()
	if v := r.vector(); v != 0 {
		t.Errorf("SINGLE_VECTOR: vector %d", v)
	}
	r.Write32(regs.MSIXControl, 0)
	clear()

	r.Write32(regs.IntAutoClr, tamper)
	for range 3 {
		force()
		r.vector()
		r.expect(regs.IntCause, 0)
	}
	r.Write32(regs.IntForce, 1<<7|1<<11) // bits without a meaning
	r.expect(regs.IntCause, 0)
}

func TestEveryVector(t *testing.T) {
	r := running(t, Config{})
	for v := range regs.MSIXVectors {
		reg, shift := regs.CauseFWEvent.Route()
		r.Write32(reg, uint32(v)<<shift)
		r.Write32(regs.IntForce, regs.CauseFWEvent.Mask())
		if got := r.vector(); got != v {
			t.Errorf("message on vector %d, want %d", got, v)
		}
		r.Write32(regs.IntCause, ^uint32(0))
	}
}

func TestResponseInterrupts(t *testing.T) {
	r := running(t, Config{})
	nop := func(irq bool) {
		c := regs.Command{Opcode: regs.OpNOP}
		if irq {
			c.Flags = regs.FlagIRQ
		}
		r.do(c)
	}
	r.Write32(regs.IntMask, regs.CauseCMDQEmpty.Mask())
	nop(false)
	r.quiet("a command without IRQ")
	for range 5 {
		nop(true)
		r.vector()
	}
	r.expect(regs.IntCause, r.Read32(regs.IntCause)&^regs.CauseRspAvail.Mask())

	r.Write32(regs.IntMask, ^regs.CauseRspAvail.Mask())
	r.Write32(regs.IntCoalesce, uint32(regs.NewCoalesce(60000, 4)))
	for range 3 {
		nop(true)
	}
	r.quiet("three of four")
	nop(true)
	r.vector()

	nop(true)
	r.do(regs.Command{Opcode: 0x7777, Flags: regs.FlagIRQ}) // an error does not wait
	r.vector()

	r.Write32(regs.IntCoalesce, uint32(regs.NewCoalesce(2000, 200)))
	begin := time.Now()
	nop(true)
	r.vector()
	if d := time.Since(begin); d < 2*time.Millisecond {
		t.Errorf("the time passed after %v", d)
	}
	nop(true)
	r.Write32(regs.IntCoalesce, 0) // switching it off sends what was counted
	r.vector()
}

func TestThrottle(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.IntMask, ^regs.CauseRspAvail.Mask())
	r.Write32(regs.IntThrottle, 20000)
	r.do(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ})
	r.vector()
	begin := time.Now()
	for range 10 {
		r.do(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ})
	}
	r.vector()
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("the second message took %v", d)
	}
	r.quiet("ten responses and two messages")
	r.Write32(regs.PerfCtrl, regs.PerfEnable|regs.PerfSnapshot)
	r.expect(regs.PerfIRQSentLo, 2)
}

func TestDroppedInterrupt(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.IntMask, ^regs.CauseRspAvail.Mask())
	r.DropInterrupts(1)
	r.do(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ})
	r.quiet("a dropped message")
	r.do(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ})
	r.vector()
}

// The card's own MSI-X table: masked vectors pend, function mask too.
func TestMSIXTable(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := &rig{T: t, Card: c, irq: make(chan int, 16)}
	c.Connect(NewMemory(func(v int) { r.irq <- v }))
	r.WriteConfig(regs.CfgCommand, []byte{6, 0})
	r.ready()
	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80})
	r.Write32(regs.DevControl, uint32(regs.ControlRun))
	r.Write32(regs.IntEnable, ^uint32(0))
	r.Write32(regs.IntMask, 0)
	entry := regs.Reg(regs.MSIXTable + regs.VectorKeys*regs.MSIXEntry)
	r.expect(entry+12, regs.MSIXEntryMasked)
	r.Write(uint64(entry), []byte{0x0C, 0xF0, 0xE0, 0xFE, 0, 0, 0, 0})
	r.Write32(entry+8, 0x41)
	r.expect(entry, 0xFEE0F00C)
	r.expect(entry+8, 0x41)

	r.Write32(regs.IntForce, regs.CauseTamper.Mask())
	r.quiet("a masked vector")
	r.expect(regs.MSIXPBA, 1<<regs.VectorKeys)
	r.Write32(entry+12, 0)
	if v := r.vector(); v != regs.VectorKeys {
		t.Errorf("vector %d", v)
	}
	r.expect(regs.MSIXPBA, 0)

	r.Write32(regs.IntCause, ^uint32(0))
	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0xC0})
	r.expect(regs.MSIXControl, regs.MSIXEnabled|regs.MSIXMasked)
	r.Write32(regs.IntForce, regs.CauseTamper.Mask())
	r.quiet("the function mask")
	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80})
	r.vector()
}
