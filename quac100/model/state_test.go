package model

import (
	"context"
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

func (r *rig) status() regs.Status { return regs.Status(r.Read32(regs.DevStatus)) }

// dirty puts something into everything that a reset may clear.
func (r *rig) dirty() {
	r.Write32(regs.Scratch0, 1)
	r.Write32(regs.Scratch1, 2)
	r.Write32(regs.TempCrit, 90000)
	r.Write32(regs.TempWarn, 80000)
	r.Write32(regs.IntCoalesce, 5)
	r.Write32(regs.KeyZeroize, 1)                                            // ERR_STATUS
	r.do(regs.Command{Opcode: regs.OpEcho, Src0Len: 1, Dst0: 8, Dst0Len: 8}) // DMA_ERROR
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	r.until(regs.CMDQStatus, 0xFFFF0000, 0)
}

func TestResetTable(t *testing.T) {
	const yes, no = true, false
	for _, c := range []struct {
		name                                                                                 string
		do                                                                                   func(*rig)
		cause                                                                                uint32
		indices, base, control, ints, config, errs, scratch1, thresholds, counters, selfTest bool // cleared, or done
	}{
		{"abort", func(r *rig) { r.Write32(regs.Reset, regs.ResetAbort) }, regs.CauseAbort, no, no, no, no, no, no, no, no, no, no},
		{"ring", func(r *rig) { r.Write32(regs.Reset, regs.ResetRing) }, regs.CauseRing, yes, no, no, no, no, no, no, no, no, no},
		{"soft", func(r *rig) { r.Write32(regs.Reset, regs.ResetSoft) }, regs.CauseSoft, yes, yes, yes, yes, no, no, no, no, no, yes},
		{"soft by control", func(r *rig) { r.Write32(regs.DevControl, uint32(regs.ControlReset)) }, regs.CauseSoft, yes, yes, yes, yes, no, no, no, no, no, yes},
		{"full", func(r *rig) { r.Write32(regs.Reset, regs.ResetFull) }, regs.CauseFull, yes, yes, yes, yes, no, yes, yes, yes, yes, yes},
		{"FLR", func(r *rig) { r.WriteConfig(regs.CfgDevControl, []byte{0, 0x80}) }, regs.CauseFLR, yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
		{"power", func(r *rig) { r.PowerCycle() }, regs.CausePowerUp, yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := running(t, Config{})
			r.dirty()
			r.Write32(regs.SelfTestCtrl, uint32(regs.TestMemory))
			r.until(regs.SelfTestStatus, ^uint32(0), regs.SelfTestPassed)
			c.do(r)
			var cmd [2]byte
			r.ReadConfig(regs.CfgCommand, cmd[:])
			if (cmd[0] == 0) != c.config {
				t.Errorf("command = %x", cmd)
			}
			r.pciOn()
			r.ready()
			check := func(what string, cleared bool, reg regs.Reg, dirty, clean uint32) {
				t.Helper()
				want := dirty
				if cleared {
					want = clean
				}
				if got := r.Read32(reg); got != want {
					t.Errorf("%s: %v = %#x, want %#x", what, reg, got, want)
				}
			}
			check("cause", true, regs.ResetCause, 0, c.cause|map[bool]uint32{true: 0x100}[c.cause == regs.CauseSoft])
			check("scratch 0", true, regs.Scratch0, 1, 0)
			check("indices", c.indices, regs.CMDQTail, r.tail, 0)
			check("indices", c.indices, regs.RSPQHead, r.head, 0)
			check("queue enable", true, regs.CMDQCtrl, 1, 0)
			check("queue enable", c.indices, regs.RSPQCtrl, 1, 0)
			check("base", c.base, regs.CMDQBaseLo, cmdqAt, 0)
			check("size", c.base, regs.RSPQSize, r.size, 256)
			check("control", c.control, regs.DevControl, uint32(regs.ControlRun), 0)
			check("interrupts", c.ints, regs.IntCoalesce, 5, 0x00100032)
			check("interrupts", c.ints, regs.IntMask, 0, ^uint32(0))
			check("errors", c.errs, regs.ErrStatus, regs.ErrAccess.Mask()|regs.ErrDMA.Mask(), 0)
			check("DMA errors", c.errs, regs.DMAError, regs.DMAErrReadFault|regs.DMAErrUnmapped, 0)
			check("scratch 1", c.scratch1, regs.Scratch1, 2, 0)
			check("thresholds", c.thresholds, regs.TempWarn, 80000, 85000)
			check("counters", c.counters, regs.OpsOKLo, 1, 0)
			check("self-test", c.selfTest, regs.SelfTestCtrl, uint32(regs.TestMemory), uint32(regs.TestsStartup))
			if !c.indices {
				r.Write32(regs.CMDQCtrl, regs.QueueEnable)
				r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
				return
			}
			r.start()
			r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
		})
	}
}

// While a reset runs nothing but identity and status can be read, and nothing written.
func TestRegistersDuringReset(t *testing.T) {
	r := running(t, Config{})
	release := make(chan struct{})
	r.FailDMA(func(bool, uint64, int) error { <-release; return nil })
	r.push(regs.Command{Opcode: regs.OpNOP})
	r.ring()
	r.until(regs.DevStatus, uint32(regs.StatusDMAActive), uint32(regs.StatusDMAActive))
	r.Write32(regs.Reset, regs.ResetSoft) // has to wait for the access under way
	r.expect(regs.DevStatus, uint32(regs.StatusInitializing))
	r.expect(regs.DevID, regs.IDWord)
	r.expect(regs.DevRev, 0x00010001)
	r.Write32(regs.Scratch1, 7)
	r.expect(regs.DevCaps, 0)
	r.expect(regs.CMDQSize, 0)
	close(release)
	r.FailDMA(nil)
	r.ready()
	r.expect(regs.Scratch1, 0)
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

// After a dropped command the card writes no more to its buffers.
func TestDroppedCommandWritesNothing(t *testing.T) {
	r := running(t, Config{})
	for range 50 {
		dst, out := r.alloc(1 << 16)
		for range 8 {
			r.push(regs.Command{Opcode: regs.OpQRNGRead, Aux: uint16(regs.QualityFast), Dst0: dst, Dst0Len: 1 << 16})
		}
		r.ring()
		r.Write32(regs.Reset, regs.ResetRing)
		r.until(regs.DevStatus, uint32(regs.StatusReady), uint32(regs.StatusReady))
		clear(out) // the race detector sees it if the card still writes
		clear(r.ram[rspqAt-ramAt:][:r.size*regs.ResponseSize])
		for _, b := range out {
			if b != 0 {
				t.Fatal("the card wrote after the reset")
			}
		}
		r.freeAt = dataAt
		r.start()
	}
}

func TestSelfTestFailure(t *testing.T) {
	r := newRig(t, Config{FailSelfTest: regs.TestDecaps | regs.TestNTT})
	r.until(regs.DevStatus, uint32(regs.StatusError), uint32(regs.StatusError))
	if s := r.status(); s&(regs.StatusReady|regs.StatusSelfTestOK|regs.StatusCryptoReady) != 0 {
		t.Errorf("status %#x", s)
	}
	if err := r.WaitReady(context.Background()); err == nil {
		t.Error("WaitReady says ready")
	}
	r.expect(regs.SelfTestResult, uint32(regs.TestDecaps)) // NTT is not in the start-up set
	r.expect(regs.SelfTestStatus, regs.SelfTestFailed)
	r.expect(regs.ErrStatus, regs.ErrSelfTest.Mask())
	r.FailSelfTest(0)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.ready()
	r.expect(regs.SelfTestResult, 0)
	r.expect(regs.ErrStatus, regs.ErrSelfTest.Mask()) // kept by a soft reset
	r.start()

	r.FailSelfTest(regs.TestNTT)
	r.want(regs.Command{Opcode: regs.OpSelfTest, KeyID: uint32(regs.TestMemory | regs.TestDMA | regs.TestPCIe)}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpSelfTest, KeyID: uint32(regs.TestsAll)}, regs.RespSelfTestFail, regs.Detail(regs.TestNTT))
	r.want(regs.Command{Opcode: 0x7777}, regs.RespSelfTestFail, regs.DetailSelfTestRequired)
	if s := r.status(); s&regs.StatusError == 0 {
		t.Errorf("status %#x", s)
	}
}

func TestSelfTestByRegister(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.IntMask, ^regs.CauseSelfTestDone.Mask())
	r.Write32(regs.SelfTestCtrl, uint32(regs.TestsAll)|0x80000000)
	if v := r.vector(); v != regs.VectorCrypto {
		t.Errorf("vector %d", v)
	}
	r.expect(regs.SelfTestCtrl, uint32(regs.TestsAll))
	r.expect(regs.SelfTestStatus, regs.SelfTestPassed)
	r.Write32(regs.IntCause, ^uint32(0))
	r.Write32(regs.DevControl, uint32(regs.ControlRun|regs.ControlSelfTestRun))
	r.vector()
	r.expect(regs.SelfTestCtrl, uint32(regs.TestsStartup))
	r.expect(regs.DevControl, uint32(regs.ControlRun))
	r.Write32(regs.IntCause, ^uint32(0))
	r.Write32(regs.NTTControl, regs.NTTRun|regs.NTTViewMLDSA)
	r.vector()
	r.expect(regs.SelfTestCtrl, uint32(regs.TestNTT))
	r.expect(regs.NTTParamQ, regs.QMLDSA)
	r.want(regs.Command{Opcode: regs.OpSelfTest, KeyID: uint32(regs.TestsAll)}, 0, 0)
}

func TestFIPSMode(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.DevControl, uint32(regs.ControlRun|regs.ControlFIPS))
	r.ready()
	r.expect(regs.FIPSStatus, regs.FIPSOn|regs.FIPSTested)
	if s := r.status(); s&regs.StatusFIPSOK == 0 {
		t.Errorf("status %#x", s)
	}
	r.Write32(regs.DevControl, uint32(regs.ControlRun)) // not while ENABLE is set
	r.expect(regs.DevControl, uint32(regs.ControlRun|regs.ControlFIPS))
	r.expect(regs.ErrStatus, regs.ErrAccess.Mask())
	r.startWith(regs.ControlRun | regs.ControlFIPS)
	dst, _ := r.alloc(64)
	r.want(regs.Command{Opcode: regs.OpQRNGRaw, Dst0: dst, Dst0Len: 8}, regs.RespInvalidParam, regs.DetailFIPSDenied)
	if resp := r.want(regs.Command{Opcode: regs.OpQRNGRead, Dst0: dst, Dst0Len: 8}, 0, 0); resp.Flags&regs.RespFIPSApproved == 0 {
		t.Error("not FIPS_APPROVED")
	}
	r.Write32(regs.QRNGControl, regs.QRNGEnable)
	r.expect(regs.QRNGControl, regs.QRNGEnable|regs.QRNGHealthCheck|regs.QRNGConditioning)
	r.Write32(regs.QRNGSrcMask, 1)
	r.expect(regs.QRNGSrcMask, 0xFF)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.ready()
	r.expect(regs.DevControl, uint32(regs.ControlFIPS)) // kept
	r.expect(regs.FIPSStatus, regs.FIPSOn|regs.FIPSTested)
	r.Write32(regs.Reset, regs.ResetFull)
	r.ready()
	r.expect(regs.DevControl, 0)
	r.expect(regs.FIPSStatus, 0)
}

// A change of the mode while commands drain goes through INIT beside them.
func TestFIPSModeWhileDraining(t *testing.T) {
	r := running(t, Config{})
	release := make(chan struct{})
	r.SetLatency(func(regs.Opcode) time.Duration { <-release; return 0 })
	r.push(regs.Command{Opcode: regs.OpNOP})
	r.ring()
	r.until(regs.CMDQHead, ^uint32(0), 1)
	r.Write32(regs.DevControl, uint32(regs.ControlDMA))
	r.Write32(regs.DevControl, uint32(regs.ControlDMA|regs.ControlFIPS))
	r.ready()
	r.expect(regs.FIPSStatus, regs.FIPSOn|regs.FIPSTested)
	close(release)
	r.next()
	r.Tamper()
	r.Write32(regs.DevControl, 0)
	r.expect(regs.DevControl, uint32(regs.ControlFIPS))
	if s := r.status(); s&regs.StatusZeroized == 0 {
		t.Errorf("status %#x: the mode switch leads out of ZEROIZED", s)
	}
}

func TestHeat(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.TempWarn, 91000) // not 5 degrees below critical
	r.expect(regs.TempWarn, 85000)
	r.Write32(regs.TempCrit, 101000)
	r.expect(regs.TempCrit, 95000)
	step := func(milli int32, therm uint32, on, off regs.Status) {
		t.Helper()
		r.SetTemperature(regs.TempCore, milli)
		r.expect(regs.ThermState, therm)
		if s := r.status(); s&on != on || s&off != 0 {
			t.Errorf("at %d: status %#x", milli, s)
		}
	}
	hot := regs.StatusTempWarn | regs.StatusThrottled
	step(84999, regs.ThermNormal, 0, hot)
	step(85000, regs.ThermWarning, hot, regs.StatusTempCrit)
	r.expect(regs.ClockMHz, 500)
	step(80000, regs.ThermWarning, hot, 0)
	step(79999, regs.ThermNormal, 0, hot)
	r.expect(regs.ClockMHz, 1000)
	want := regs.CauseTemp.Mask() | regs.CauseThrottle.Mask()
	if got := r.Read32(regs.IntCause); got&want != want {
		t.Errorf("causes %#x", got)
	}
	step(95000, regs.ThermCritical, hot|regs.StatusTempCrit|regs.StatusReady, 0)
	dst, _ := r.alloc(256)
	r.want(regs.Command{Opcode: regs.OpEcho, Flags: 0x8000}, regs.RespOverTemp, regs.DetailThermal)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpInfo, Dst0: dst, Dst0Len: 128}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpHealth, Dst0: dst, Dst0Len: 64}, 0, 0)
	step(81000, regs.ThermCritical, regs.StatusTempCrit, 0) // leaves only below the warning
	step(79000, regs.ThermNormal, regs.StatusReady, hot)

	step(105000, regs.ThermShutdown, regs.StatusError|regs.StatusHalted, regs.StatusReady)
	if reason, _ := regs.SplitCMDQStatus(r.Read32(regs.CMDQStatus)); reason != regs.HaltThermal {
		t.Errorf("halt reason %d", reason)
	}
	if r.Read32(regs.ErrStatus)&regs.ErrThermalShutdown.Mask() == 0 {
		t.Errorf("errors %#x", r.Read32(regs.ErrStatus))
	}
	r.SetTemperature(regs.TempCore, 45000)
	r.expect(regs.ThermState, regs.ThermShutdown) // needs a reset as well
	r.SetTemperature(regs.TempCore, 93000)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.until(regs.DevStatus, uint32(regs.StatusInitializing|regs.StatusError), uint32(regs.StatusError))
	r.SetTemperature(regs.TempCore, 45000)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.ready()
	r.expect(regs.ThermState, regs.ThermNormal)
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)

	r.SetPower(80000)
	if s := r.status(); s&regs.StatusPowerWarn == 0 || r.Read32(regs.IntCause)&regs.CausePower.Mask() == 0 {
		t.Errorf("status %#x causes %#x", s, r.Read32(regs.IntCause))
	}
	r.Write32(regs.PowerLimitMW, 90000)
	if s := r.status(); s&regs.StatusPowerWarn != 0 {
		t.Errorf("status %#x", s)
	}
}

func TestTamper(t *testing.T) {
	r := running(t, Config{})
	r.Tamper()
	if s := r.status(); s&(regs.StatusZeroized|regs.StatusError|regs.StatusTamper) != regs.StatusZeroized|regs.StatusError|regs.StatusTamper || s&regs.StatusReady != 0 {
		t.Errorf("status %#x", s)
	}
	r.want(regs.Command{Opcode: regs.OpNOP}, regs.RespSelfTestFail, regs.DetailZeroized)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.until(regs.DevStatus, uint32(regs.StatusInitializing|regs.StatusZeroized), uint32(regs.StatusZeroized))
	r.Write32(regs.Reset, regs.ResetFull)
	r.ready()
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestFirmwareDies(t *testing.T) {
	r := running(t, Config{})
	r.FailFirmware()
	r.want(regs.Command{Opcode: regs.OpNOP}, regs.RespFWError, 0)
	r.Write32(regs.Reset, regs.ResetSoft)
	r.ready()
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestHang(t *testing.T) {
	for _, c := range []struct {
		kind Hang
		cure func(*rig)
	}{
		{HangSoft, func(r *rig) { r.Write32(regs.Reset, regs.ResetSoft) }},
		{HangFLR, func(r *rig) {
			r.Write32(regs.Reset, regs.ResetSoft)
			time.Sleep(5 * time.Millisecond)
			r.expect(regs.DevStatus, uint32(regs.StatusInitializing)) // the soft reset does not end
			r.WriteConfig(regs.CfgDevControl, []byte{0, 0x80})
			r.pciOn()
		}},
		{HangForever, func(r *rig) {
			r.PowerCycle()
			r.pciOn()
			time.Sleep(5 * time.Millisecond)
			r.expect(regs.DevStatus, uint32(regs.StatusInitializing))
			r.Hang(HangNone)
		}},
	} {
		r := running(t, Config{})
		r.Hang(c.kind)
		beat := r.Read32(regs.Heartbeat)
		r.push(regs.Command{Opcode: regs.OpNOP})
		r.ring()
		time.Sleep(250 * time.Millisecond)
		r.expect(regs.Heartbeat, beat)
		if _, ok := r.poll(); ok {
			t.Error("a hung card answers")
		}
		c.cure(r)
		r.ready()
		r.start()
		r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
		beat = r.Read32(regs.Heartbeat)
		r.until(regs.Heartbeat, ^uint32(0), beat+2)
	}
}

func TestRecords(t *testing.T) {
	r := running(t, Config{Serial: 0xABC, FWVersion: 0x01020003, TempCore: 51000})
	dst, b := r.alloc(256)
	r.want(regs.Command{Opcode: regs.OpInfo, Dst0: dst, Dst0Len: 256}, 0, 0)
	info, err := regs.ParseCardInfo(b)
	if err != nil || info.Serial != 0xABC || info.FWVersion != 0x01020003 || info.Caps != modelCaps || info.SerialText != "QUAC100-0000000000000ABC" || info.Model != "QUAC 100 simulator" {
		t.Errorf("%+v %v", info, err)
	}
	r.want(regs.Command{Opcode: regs.OpHealth, Dst0: dst, Dst0Len: 64}, 0, 0)
	h, err := regs.ParseHealth(b)
	if err != nil || h.State != regs.HealthOK || h.TempCore != 51000 || h.PoolBits != regs.QRNGPoolBits || h.SlotsTotal != 256 {
		t.Errorf("%+v %v", h, err)
	}
	r.SetTemperature(regs.TempCore, 96000)
	r.want(regs.Command{Opcode: regs.OpHealth, Dst0: dst, Dst0Len: 64}, 0, 0)
	if h, _ = regs.ParseHealth(b); h.State != regs.HealthCritical || h.Flags&regs.HealthTempCritical == 0 {
		t.Errorf("%+v", h)
	}
}

func TestPerfSnapshot(t *testing.T) {
	r := running(t, Config{})
	dst, _ := r.alloc(4096)
	for range 10 {
		r.want(regs.Command{Opcode: regs.OpQRNGRead, Flags: regs.FlagIRQ, Dst0: dst, Dst0Len: 100}, 0, 0)
	}
	r.do(regs.Command{Opcode: 0x7777})
	r.expect(regs.PerfQRNGBytesLo, 0)
	r.Write32(regs.PerfCtrl, regs.PerfEnable|regs.PerfSnapshot)
	r.expect(regs.PerfSeq, 1)
	r.expect(regs.PerfQRNGBytesLo, 1000)
	r.expect(regs.PerfCmdsOKLo, 10)
	r.expect(regs.PerfCmdsFailedLo, 1)
	r.expect(regs.PerfDMAWrLo, 1000+11*regs.ResponseSize)
	r.expect(regs.PerfDMARdLo, 11*regs.CommandSize)
	sum := func(class uint32) (n uint32) {
		r.Write32(regs.PerfHistSel, class)
		for i := range regs.Reg(regs.HistBuckets) {
			n += r.Read32(regs.PerfHist0 + 4*i)
		}
		return n
	}
	if all, q := sum(regs.HistAll), sum(regs.HistQRNG); all != 11 || q != 10 {
		t.Errorf("histograms hold %d and %d", all, q)
	}
	r.Write32(regs.PerfHistSel, 99)
	r.expect(regs.PerfHistSel, regs.HistQRNG)
	r.Write32(regs.PerfCtrl, regs.PerfEnable|regs.PerfClear)
	r.expect(regs.PerfCmdsOKLo, 0)
	r.Write32(regs.PerfCtrl, regs.PerfEnable|regs.PerfSnapshot)
	r.expect(regs.PerfCmdsOKLo, 0)
	r.expect(regs.PerfDMAWrLo, 0)
}

func TestUptime(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.until(regs.UptimeLo, ^uint32(0), 1)
	r.WriteConfig(regs.CfgDevControl, []byte{0, 0x80})
	r.pciOn()
	r.ready()
	if r.Read32(regs.UptimeLo) == 0 {
		t.Error("an FLR clears UPTIME")
	}
	r.Write32(regs.Reset, regs.ResetFull)
	r.ready()
	r.expect(regs.UptimeLo, 0)
}
