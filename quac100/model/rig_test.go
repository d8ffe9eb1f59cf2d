package model

import (
	"context"
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

// rig is a card in a minimal machine: memory, rings, and a counter of messages per vector.
type rig struct {
	*testing.T
	*Card
	mem    *Memory
	ram    []byte // mapped at ramAt
	irq    chan int
	size   uint32
	tail   uint32
	head   uint32 // of responses
	phase  bool
	tag    uint32
	freeAt uint64
}

const (
	ramAt   = 0x100000
	ramSize = 8 << 20
	cmdqAt  = ramAt
	rspqAt  = ramAt + 0x40000
	dataAt  = ramAt + 0x80000
)

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	cfg.HostMSIX = true
	r := &rig{T: t, irq: make(chan int, 65536), ram: make([]byte, ramSize), size: 64, phase: true, freeAt: dataAt}
	card, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	r.Card = card
	r.mem = NewMemory(func(v int) { r.irq <- v })
	if err := r.mem.Map(ramAt, r.ram, true, true); err != nil {
		t.Fatal(err)
	}
	card.Connect(r.mem)
	r.pciOn()
	return r
}

func (r *rig) pciOn() {
	r.WriteConfig(regs.CfgCommand, []byte{0x06, 0})
	r.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80})
}

func (r *rig) ready() *rig {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := r.WaitReady(ctx); err != nil {
		r.Fatalf("card is not ready: %v, status %#x, failed self-tests %#x", err, r.Read32(regs.DevStatus), r.Read32(regs.SelfTestResult))
	}
	return r
}

// start does the bring-up of the specification's section 20, from step 8 on.
func (r *rig) start() *rig {
	r.Helper()
	return r.startWith(regs.ControlRun)
}

func (r *rig) startWith(control regs.Control) *rig {
	r.Helper()
	clear(r.ram[rspqAt-ramAt:][:r.size*regs.ResponseSize])
	r.tail, r.head, r.phase = 0, 0, true
	for _, w := range []struct {
		reg regs.Reg
		v   uint32
	}{
		{regs.CMDQBaseLo, cmdqAt}, {regs.CMDQSize, r.size}, {regs.RSPQBaseLo, rspqAt}, {regs.RSPQSize, r.size},
		{regs.IntCause, ^uint32(0)}, {regs.IntEnable, ^uint32(0)}, {regs.IntMask, 0},
		{regs.DMAControl, regs.DMAEnable | regs.DMASG}, {regs.DevControl, uint32(control)},
		{regs.RSPQCtrl, regs.QueueEnable}, {regs.CMDQCtrl, regs.QueueEnable},
	} {
		r.Write32(w.reg, w.v)
	}
	if s := regs.Status(r.Read32(regs.DevStatus)); s&(regs.StatusCMDQRun|regs.StatusRSPQRun) != regs.StatusCMDQRun|regs.StatusRSPQRun {
		r.Fatalf("rings do not run: status %#x, CMDQ %#x err %#x, RSPQ %#x err %#x", s,
			r.Read32(regs.CMDQStatus), r.Read32(regs.CMDQErr), r.Read32(regs.RSPQStatus), r.Read32(regs.RSPQErr))
	}
	return r
}

func running(t *testing.T, cfg Config) *rig {
	t.Helper()
	return newRig(t, cfg).ready().start()
}

// alloc returns the address and bytes of n bytes of memory for a buffer.
func (r *rig) alloc(n int) (uint64, []byte) {
	at := r.freeAt
	r.freeAt += uint64(n+63) &^ 63
	b := r.ram[at-ramAt:][:n]
	clear(b)
	return at, b
}

func (r *rig) put(p []byte) uint64 {
	at, b := r.alloc(len(p))
	copy(b, p)
	return at
}

// push stores a command in the ring without ringing.
func (r *rig) push(c regs.Command) uint32 {
	r.tag++
	c.Tag = r.tag
	c.Put(r.ram[cmdqAt-ramAt+int(r.tail)*regs.CommandSize:])
	r.tail = (r.tail + 1) % r.size
	return c.Tag
}

func (r *rig) ring() { r.Write32(regs.CMDQDoorbell, r.tail) }

// poll looks whether the next response is there, as a driver does: the phase first.
func (r *rig) poll() (regs.Response, bool) {
	at := int(rspqAt-ramAt) + int(r.head)*regs.ResponseSize
	_, flags := regs.SplitTail(loadDMA(r.ram[at+regs.ResponseTail:]))
	if flags&regs.RespPhase != 0 != r.phase {
		return regs.Response{}, false
	}
	resp, err := regs.ParseResponse(r.ram[at:])
	if err != nil {
		r.Fatal(err)
	}
	if r.head = (r.head + 1) % r.size; r.head == 0 {
		r.phase = !r.phase
	}
	return resp, true
}

// next waits for a response and gives its slot back.
func (r *rig) next() regs.Response {
	r.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		if resp, ok := r.poll(); ok {
			r.Write32(regs.RSPQDoorbell, r.head)
			return resp
		}
		if time.Now().After(limit) {
			r.Fatalf("no response: status %#x, CMDQ %#x head %d tail %d, RSPQ %#x", r.Read32(regs.DevStatus),
				r.Read32(regs.CMDQStatus), r.Read32(regs.CMDQHead), r.Read32(regs.CMDQTail), r.Read32(regs.RSPQStatus))
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// do executes one command.
func (r *rig) do(c regs.Command) regs.Response {
	r.Helper()
	tag := r.push(c)
	r.ring()
	resp := r.next()
	if resp.Tag != tag || resp.Opcode != c.Opcode {
		r.Fatalf("response of tag %d opcode %v to tag %d opcode %v", resp.Tag, resp.Opcode, tag, c.Opcode)
	}
	return resp
}

func (r *rig) want(c regs.Command, s regs.RespStatus, d regs.Detail) regs.Response {
	r.Helper()
	resp := r.do(c)
	if resp.Status != s || resp.Detail != d {
		r.Errorf("%v flags %#x: %v / %v, want %v / %v", c.Opcode, c.Flags, resp.Status, resp.Detail, s, d)
	}
	if resp.Status != 0 && (resp.Out0Len != 0 || resp.Out1Len != 0) {
		r.Errorf("%v failed, yet says it wrote %d and %d bytes", c.Opcode, resp.Out0Len, resp.Out1Len)
	}
	return resp
}

// until polls a register until it has the bits of mask as in want.
func (r *rig) until(reg regs.Reg, mask, want uint32) {
	r.Helper()
	limit := time.Now().Add(20 * time.Second)
	for r.Read32(reg)&mask != want {
		if time.Now().After(limit) {
			r.Fatalf("%v stays %#x, waited for %#x in %#x", reg, r.Read32(reg), want, mask)
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// vector waits for the next message.
func (r *rig) vector() int {
	r.Helper()
	select {
	case v := <-r.irq:
		return v
	case <-time.After(20 * time.Second):
		r.Fatalf("no message: cause %#x enable %#x mask %#x", r.Read32(regs.IntCause), r.Read32(regs.IntEnable), r.Read32(regs.IntMask))
		return -1
	}
}

func (r *rig) expect(reg regs.Reg, want uint32) {
	r.Helper()
	if got := r.Read32(reg); got != want {
		r.Errorf("%v = %#x, want %#x", reg, got, want)
	}
}
