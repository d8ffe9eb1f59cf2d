package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// Capabilities of this model: all of version 1.
const modelCaps = regs.CapsFull | regs.CapSimulator

const (
	heartbeatPeriod  = 100 * time.Millisecond
	controlPlain     = regs.ControlEnable | regs.ControlDMA | regs.ControlInt | regs.ControlCrypto | regs.ControlQRNG | regs.ControlLowPower
	tempShutdownCore = 105000
)

// readControl computes the registers of the device control and ring regions that are not plain storage.
func (c *Card) readControl(r regs.Reg) (v uint32, ok bool) {
	switch r {
	case regs.DevStatus:
		return uint32(c.status()), true
	case regs.UptimeLo:
		return uint32(c.uptimeSeconds()), true
	case regs.UptimeHi:
		return uint32(c.uptimeSeconds() >> 32), true
	case regs.Heartbeat:
		return c.heartbeat(), true
	case regs.ThermState:
		return c.thermal.state, true
	case regs.ClockMHz:
		return c.clock(), true
	case regs.SelfTestStatus:
		return c.manager.status(), true
	case regs.FIPSStatus:
		return c.fipsStatus(), true
	case regs.CMDQStatus:
		return c.cmdqStatus(), true
	case regs.RSPQStatus:
		return c.rspqStatus(), true
	case regs.MSIXControl:
		v = c.get(r)
		if c.msix.enabled() {
			v |= regs.MSIXEnabled
		}
		if c.msix.control&regs.MSIXControlMask != 0 {
			v |= regs.MSIXMasked
		}
		return v, true
	case regs.DMAStatus:
		return c.dmaStatus(), true
	case regs.FWStatus:
		return c.fwStatus(), true
	case regs.FWCtrl:
		return c.fw.task, true
	}
	return 0, false
}

func (c *Card) uptimeSeconds() uint64 { return uint64(time.Since(c.uptime) / time.Second) }

func (c *Card) heartbeat() uint32 {
	if c.faults.hang != HangNone {
		return c.faults.heartbeat
	}
	return uint32(time.Since(c.heart) / heartbeatPeriod)
}

func (c *Card) clock() uint32 {
	if c.thermal.throttled || c.control()&regs.ControlLowPower != 0 {
		return c.cfg.ClockMHz / 2
	}
	return c.cfg.ClockMHz
}

func (c *Card) fipsStatus() uint32 {
	if !c.fips() {
		return 0
	}
	v := regs.FIPSOn
	switch {
	case c.phase == phaseError:
		v |= regs.FIPSError
	case c.manager.fipsTested:
		v |= regs.FIPSTested
	}
	return v
}

func (c *Card) status() regs.Status {
	var s regs.Status
	set := func(bit regs.Status, on bool) {
		if on {
			s |= bit
		}
	}
	ok := c.phase == phaseOK
	passed := c.manager.tested && c.manager.passed
	set(regs.StatusReady, ok)
	set(regs.StatusError, c.phase == phaseError || c.phase == phaseShutdown || c.phase == phaseZeroized)
	set(regs.StatusBusy, c.queue.inflight > 0)
	set(regs.StatusDMAActive, c.dma.busy > 0)
	set(regs.StatusSelfTestOK, passed)
	set(regs.StatusFIPSOK, c.fips() && c.manager.fipsTested && ok)
	set(regs.StatusQRNGReady, c.qrng.ready())
	set(regs.StatusCryptoReady, ok && passed)
	set(regs.StatusTempWarn, c.thermal.state >= regs.ThermWarning)
	set(regs.StatusTempCrit, c.thermal.state >= regs.ThermCritical)
	set(regs.StatusEntropyLow, c.qrngLow())
	set(regs.StatusPowerWarn, c.thermal.powerHigh)
	set(regs.StatusTamper, c.faults.tampered)
	set(regs.StatusSelfTestRunning, c.manager.running)
	set(regs.StatusInitializing, c.phase == phaseInit)
	set(regs.StatusCMDQRun, c.mayFetch() && c.queue.halted == regs.HaltNone)
	set(regs.StatusRSPQRun, c.enabled(regs.RSPQCtrl) && !c.queue.rspHalted)
	set(regs.StatusHalted, c.queue.halted != regs.HaltNone)
	set(regs.StatusThrottled, c.thermal.throttled)
	set(regs.StatusZeroized, c.phase == phaseZeroized)
	set(regs.StatusKeyStoreFull, c.keys.full())
	set(regs.StatusFWBusy, c.fw.task != 0)
	set(regs.StatusFWPending, c.fw.next != c.fw.running)
	return s
}

func (c *Card) writeControl(r regs.Reg, v uint32) {
	switch r {
	case regs.DevControl:
		c.writeDevControl(regs.Control(v))
	case regs.TempWarn, regs.TempCrit, regs.PowerLimitMW:
		c.writeThreshold(r, v)
	case regs.ErrStatus:
		c.clearErrors(v)
	case regs.KeyZeroize:
		if v != regs.KeyZeroizeToken {
			c.accessError(uint64(r))
			return
		}
		c.zeroize()
	case regs.SelfTestCtrl:
		c.startSelfTest(regs.SelfTest(v))
	case regs.Reset:
		c.writeReset(v)
	default: // scratch
		c.set(r, v)
	}
}

func (c *Card) writeDevControl(v regs.Control) {
	old := c.control()
	now := v & controlPlain
	if v&regs.ControlReset != 0 {
		c.reset(resetSoft)
		return
	}
	fips := v & regs.ControlFIPS
	if fips != old&regs.ControlFIPS && (old&regs.ControlEnable != 0 || c.phase != phaseOK) {
		c.accessError(uint64(regs.DevControl))
		fips = old & regs.ControlFIPS
	}
	c.set(regs.DevControl, uint32(now|fips))
	if v&regs.ControlZeroize != 0 {
		c.zeroize()
	}
	if fips != old&regs.ControlFIPS {
		c.reset(resetFIPS)
		return
	}
	if v&regs.ControlSelfTestRun != 0 {
		c.startSelfTest(regs.TestsStartup)
	}
	c.wakeAll()
	c.evaluate()
}

func (c *Card) writeReset(token uint32) {
	switch token {
	case regs.ResetSoft:
		c.reset(resetSoft)
	case regs.ResetAbort:
		c.abort()
		c.setResetCause(regs.CauseAbort)
	case regs.ResetRing:
		c.reset(resetRing)
	case regs.ResetFull:
		c.reset(resetFull)
	default:
		c.accessError(uint64(regs.Reset))
	}
}
