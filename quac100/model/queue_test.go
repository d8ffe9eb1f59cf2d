package model

import (
	"errors"
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

func TestEnableChecks(t *testing.T) {
	r := newRig(t, Config{}).ready()
	on := func() { r.Write32(regs.CMDQCtrl, regs.QueueEnable) }
	bad := func(what string) {
		t.Helper()
		if r.Read32(regs.CMDQErr)&regs.CMDQErrBadCfg == 0 || r.Read32(regs.CMDQCtrl) != 0 {
			t.Errorf("%s: CMDQ_ERR %#x CTRL %#x", what, r.Read32(regs.CMDQErr), r.Read32(regs.CMDQCtrl))
		}
		r.Write32(regs.CMDQErr, ^uint32(0))
	}
	on()
	bad("no base")
	r.Write32(regs.CMDQBaseLo, cmdqAt)
	on()
	bad("response ring off")
	r.Write32(regs.RSPQCtrl, regs.QueueEnable)
	if r.Read32(regs.RSPQErr) != regs.RSPQErrBadCfg {
		t.Errorf("response ring without a base: RSPQ_ERR %#x", r.Read32(regs.RSPQErr))
	}
	r.Write32(regs.RSPQErr, ^uint32(0))
	r.Write32(regs.RSPQBaseLo, rspqAt)
	r.Write32(regs.RSPQCtrl, regs.QueueEnable)
	for _, size := range []uint32{0, 8, 17, 48, 8192, ^uint32(0)} {
		r.Write32(regs.CMDQSize, size)
		on()
		bad("size")
	}
	r.Write32(regs.CMDQSize, 16)
	r.Write32(regs.CMDQBaseLo, cmdqAt+64)
	on()
	bad("alignment")
	r.Write32(regs.CMDQBaseLo, cmdqAt)
	on()
	r.expect(regs.CMDQCtrl, regs.QueueEnable)
	r.Write32(regs.CMDQSize, 32)
	r.expect(regs.CMDQSize, 16)
	r.expect(regs.CMDQErr, regs.CMDQErrLocked)
	r.Write32(regs.RSPQBaseHi, 1)
	r.expect(regs.RSPQBaseHi, 0)
	r.expect(regs.RSPQErr, regs.RSPQErrLocked)
	r.Write32(regs.RSPQErr, ^uint32(0))
	r.Write32(regs.RSPQCtrl, 0)
	r.expect(regs.RSPQErr, regs.RSPQErrBadCfg) // not while the command ring is on
	r.expect(regs.RSPQCtrl, regs.QueueEnable)
	r.Write32(regs.CMDQCtrl, 0)
	r.Write32(regs.RSPQCtrl, 0)
	r.expect(regs.RSPQCtrl, 0)
}

func TestBadIndices(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.CMDQTail, 1)
	r.expect(regs.CMDQErr, regs.CMDQErrBadTail)
	r.expect(regs.IntCause, regs.CauseError.Mask())
	r.start()
	r.Write32(regs.CMDQErr, ^uint32(0))
	r.Write32(regs.IntCause, ^uint32(0))
	r.Write32(regs.CMDQTail, r.size)
	r.expect(regs.CMDQTail, 0)
	r.expect(regs.CMDQErr, regs.CMDQErrBadTail)
	r.expect(regs.IntCause, regs.CauseError.Mask())
	for _, head := range []uint32{1, r.size, ^uint32(0)} {
		r.Write32(regs.RSPQErr, ^uint32(0))
		r.Write32(regs.RSPQHead, head)
		r.expect(regs.RSPQHead, 0)
		r.expect(regs.RSPQErr, regs.RSPQErrBadHead)
	}
}

func TestWrapAndPhase(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.size = 16
	r.start()
	for i := range 1000 {
		n := 1 + i%15
		first := r.tag + 1
		for range n {
			r.push(regs.Command{Opcode: regs.OpNOP})
		}
		r.ring()
		seen := make(map[uint32]bool)
		for range n {
			resp := r.next()
			if resp.Status != 0 || resp.Tag < first || resp.Tag > r.tag || seen[resp.Tag] {
				t.Fatalf("round %d: response %+v", i, resp)
			}
			seen[resp.Tag] = true
		}
	}
	r.until(regs.CMDQStatus, 0xFFFF0000, 0)
	r.expect(regs.CMDQStatus, regs.CMDQRunning|regs.CMDQEmpty)
	r.expect(regs.RSPQErr, 0)
	r.expect(regs.CMDQErr, 0)
	if done := r.Read32(regs.CMDQDone); done != r.tag || r.Read32(regs.CMDQFetched) != r.tag || r.Read32(regs.RSPQPosted) != r.tag {
		t.Errorf("%d commands: %d done", r.tag, done)
	}
}

// A driver that does not read its responses stalls the card, and loses nothing.
func TestStall(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.size = 16
	r.start()
	for range 15 {
		r.push(regs.Command{Opcode: regs.OpNOP})
	}
	r.ring()
	r.until(regs.RSPQStatus, regs.RSPQFull, regs.RSPQFull)
	for range 10 {
		r.push(regs.Command{Opcode: regs.OpNOP})
	}
	r.ring()
	r.until(regs.CMDQStatus, regs.CMDQStalled, regs.CMDQStalled)
	r.until(regs.RSPQStalls, ^uint32(0), 1)
	if r.Read32(regs.IntCause)&regs.CauseRSPQFull.Mask() == 0 {
		t.Error("no RSPQ_FULL")
	}
	for range 25 {
		r.next()
	}
	r.until(regs.CMDQStatus, regs.CMDQStalled|0xFFFF0000, 0)
}

// Each switch pauses the ring without a halt, and nothing is lost.
func TestPause(t *testing.T) {
	r := running(t, Config{})
	for name, sw := range map[string]struct{ off, on func() }{
		"bus master": {func() { r.WriteConfig(regs.CfgCommand, []byte{2, 0}) }, func() { r.WriteConfig(regs.CfgCommand, []byte{6, 0}) }},
		"ENABLE":     {func() { r.Write32(regs.DevControl, uint32(regs.ControlRun&^regs.ControlEnable)) }, func() { r.Write32(regs.DevControl, uint32(regs.ControlRun)) }},
		"DMA":        {func() { r.Write32(regs.DevControl, uint32(regs.ControlRun&^regs.ControlDMA)) }, func() { r.Write32(regs.DevControl, uint32(regs.ControlRun)) }},
		"DMA_CONTROL": {func() { r.Write32(regs.DMAControl, regs.DMASG) },
			func() { r.Write32(regs.DMAControl, regs.DMAEnable|regs.DMASG) }},
	} {
		sw.off()
		r.push(regs.Command{Opcode: regs.OpNOP})
		r.ring()
		if v := r.Read32(regs.CMDQStatus); v&(regs.CMDQPaused|regs.CMDQRunning|regs.CMDQHalted) != regs.CMDQPaused {
			t.Errorf("%s off: CMDQ_STATUS %#x", name, v)
		}
		time.Sleep(2 * time.Millisecond)
		if _, ok := r.poll(); ok {
			t.Errorf("%s off: a response came", name)
		}
		sw.on()
		r.next()
	}
	r.until(regs.CMDQStatus, ^uint32(0), regs.CMDQRunning|regs.CMDQEmpty)
}

func TestDrainAndResume(t *testing.T) {
	r := running(t, Config{})
	r.SetLatency(func(regs.Opcode) time.Duration { return 20 * time.Millisecond })
	for range 2 {
		r.push(regs.Command{Opcode: regs.OpNOP})
	}
	r.ring()
	r.until(regs.CMDQHead, ^uint32(0), 2)
	r.Write32(regs.CMDQCtrl, 0)
	if v := r.Read32(regs.CMDQStatus); v&regs.CMDQDraining == 0 {
		t.Errorf("CMDQ_STATUS %#x while commands are in flight", v)
	}
	r.Write32(regs.CMDQCtrl, regs.QueueReset)
	r.expect(regs.CMDQErr, regs.CMDQErrBadCfg)
	r.next()
	r.next()
	r.until(regs.CMDQStatus, 0xFFFF0000|regs.CMDQDraining, 0)
	r.SetLatency(nil)
	r.Write32(regs.CMDQCtrl, regs.QueueEnable)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	r.until(regs.CMDQStatus, 0xFFFF0000, 0)
	r.Write32(regs.CMDQCtrl, 0)
	r.Write32(regs.CMDQCtrl, regs.QueueReset)
	r.Write32(regs.RSPQCtrl, 0)
	r.Write32(regs.RSPQCtrl, regs.QueueReset)
	for _, reg := range []regs.Reg{regs.CMDQHead, regs.CMDQTail, regs.RSPQHead, regs.RSPQTail} {
		r.expect(reg, 0)
	}
	r.expect(regs.RSPQStatus, regs.RSPQEmpty|regs.RSPQPhase)
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestAbort(t *testing.T) {
	for name, how := range map[string]func(*rig){
		"CTRL":  func(r *rig) { r.Write32(regs.CMDQCtrl, regs.QueueEnable|regs.QueueAbort) },
		"RESET": func(r *rig) { r.Write32(regs.Reset, regs.ResetAbort) },
	} {
		r := running(t, Config{Workers: 2})
		r.SetLatency(func(regs.Opcode) time.Duration { return time.Minute })
		dst, out := r.alloc(64)
		for range 6 {
			r.push(regs.Command{Opcode: regs.OpQRNGRead, Dst0: dst, Dst0Len: 64})
		}
		r.ring()
		r.until(regs.CMDQHead, ^uint32(0), 6)
		begin := time.Now()
		how(r)
		for range 6 {
			if resp := r.next(); resp.Status != regs.RespTimeout || resp.Detail != regs.DetailAborted || resp.Out0Len != 0 {
				t.Errorf("%s: response %+v", name, resp)
			}
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s took %v", name, d)
		}
		r.expect(regs.CMDQCtrl, 0)
		r.SetLatency(nil)
		r.until(regs.CMDQStatus, 0xFFFF0000, 0)
		for _, b := range out {
			if b != 0 {
				t.Fatalf("%s: an aborted command wrote %x", name, out)
			}
		}
		r.Write32(regs.CMDQCtrl, regs.QueueEnable)
		r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	}
}

func TestTimeout(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.CMDQTimeoutMS, 9)
	r.expect(regs.CMDQTimeoutMS, 5000)
	r.Write32(regs.CMDQTimeoutMS, 10)
	r.SetLatency(func(regs.Opcode) time.Duration { return time.Minute })
	dst, out := r.alloc(32)
	resp := r.want(regs.Command{Opcode: regs.OpQRNGRead, Dst0: dst, Dst0Len: 32}, regs.RespTimeout, 0)
	if resp.LatencyNS < 10_000_000 {
		t.Errorf("timed out after %d ns", resp.LatencyNS)
	}
	r.SetLatency(nil)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	for _, b := range out {
		if b != 0 {
			t.Fatalf("a late result was written: %x", out)
		}
	}
}

func TestFence(t *testing.T) {
	r := running(t, Config{Workers: 4})
	r.SetLatency(func(o regs.Opcode) time.Duration {
		if o == regs.OpHealth {
			return 5 * time.Millisecond
		}
		return 0
	})
	dst, _ := r.alloc(64)
	slow := r.push(regs.Command{Opcode: regs.OpHealth, Dst0: dst, Dst0Len: 64})
	fence := r.push(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagFence})
	last := r.push(regs.Command{Opcode: regs.OpNOP})
	r.ring()
	for _, tag := range []uint32{slow, fence, last} {
		if resp := r.next(); resp.Tag != tag {
			t.Errorf("tag %d came, want %d", resp.Tag, tag)
		}
	}
}

func TestFetchFault(t *testing.T) {
	r := running(t, Config{})
	r.FailDMA(func(write bool, iova uint64, n int) error {
		if iova >= cmdqAt && iova < rspqAt {
			return ErrUnmapped
		}
		return nil
	})
	r.push(regs.Command{Opcode: regs.OpNOP})
	r.ring()
	r.until(regs.CMDQStatus, regs.CMDQHalted, regs.CMDQHalted)
	if reason, _ := regs.SplitCMDQStatus(r.Read32(regs.CMDQStatus)); reason != regs.HaltFetch {
		t.Errorf("halt reason %d", reason)
	}
	r.expect(regs.CMDQErr, regs.CMDQErrFetchFault)
	r.expect(regs.ErrStatus, regs.ErrCMDQ.Mask())
	r.expect(regs.DMAError, regs.DMAErrReadFault|regs.DMAErrUnmapped)
	r.expect(regs.DMAErrAddrLo, cmdqAt)
	want := regs.CauseCMDQHalt.Mask() | regs.CauseDMAError.Mask() | regs.CauseError.Mask()
	if got := r.Read32(regs.IntCause); got&want != want {
		t.Errorf("causes %#x", got)
	}
	if s := regs.Status(r.Read32(regs.DevStatus)); s&regs.StatusHalted == 0 || s&regs.StatusReady == 0 {
		t.Errorf("status %#x", s)
	}
	r.FailDMA(nil)
	r.Write32(regs.CMDQCtrl, 0)
	r.Write32(regs.CMDQCtrl, regs.QueueReset)
	r.tail = 0
	r.Write32(regs.CMDQCtrl, regs.QueueEnable)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestResponseFault(t *testing.T) {
	r := running(t, Config{})
	r.FailDMA(func(write bool, iova uint64, n int) error {
		if write {
			return errors.New("injected")
		}
		return nil
	})
	r.push(regs.Command{Opcode: regs.OpNOP})
	r.push(regs.Command{Opcode: regs.OpNOP})
	r.ring()
	r.until(regs.RSPQStatus, regs.RSPQHalted, regs.RSPQHalted)
	if reason, inflight := regs.SplitCMDQStatus(r.Read32(regs.CMDQStatus)); reason != regs.HaltWrite || inflight != 0 {
		t.Errorf("halt reason %d, %d in flight", reason, inflight)
	}
	r.expect(regs.RSPQErr, regs.RSPQErrWriteFault)
	r.expect(regs.ErrStatus, regs.ErrRSPQ.Mask())
	r.FailDMA(nil)
	r.Write32(regs.CMDQCtrl, 0)
	r.Write32(regs.RSPQCtrl, 0)
	r.Write32(regs.CMDQCtrl, regs.QueueReset)
	r.Write32(regs.RSPQCtrl, regs.QueueReset)
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestMaxInflight(t *testing.T) {
	r := running(t, Config{Workers: 8})
	r.Write32(regs.CMDQMaxInflight, 3)
	r.Write32(regs.CMDQMaxInflight, 0)
	r.Write32(regs.CMDQMaxInflight, 5000)
	r.expect(regs.CMDQMaxInflight, 3)
	r.SetLatency(func(regs.Opcode) time.Duration { return 3 * time.Millisecond })
	for range 12 {
		r.push(regs.Command{Opcode: regs.OpNOP})
	}
	r.ring()
	for range 12 {
		if _, n := regs.SplitCMDQStatus(r.Read32(regs.CMDQStatus)); n > 3 {
			t.Errorf("%d in flight", n)
		}
		r.next()
	}
}
