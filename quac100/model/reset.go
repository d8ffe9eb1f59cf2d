package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// resetKind is a set of resets to be done.
type resetKind uint8

const (
	resetFIPS resetKind = 1 << iota // not a reset: only the way through INIT
	resetRing
	resetSoft
	resetFLR
	resetFull
	resetPower

	resetWork = resetRing | resetDevice
	// resetDevice are the resets that clear more than the rings, and run the self-tests.
	resetDevice = resetSoft | resetFLR | resetFull | resetPower
	// resetHard clear what a soft reset keeps.
	resetHard = resetFLR | resetFull | resetPower
)

// manager carries out resets and self-tests, one after the other.
type manager struct {
	todo       resetKind
	prev       phase         // to return to after a reset of the rings
	test       regs.SelfTest // wanted on demand
	init       bool          // INIT is not over
	running    bool
	run        int  // number of the latest run
	tested     bool // a run has ended
	passed     bool
	fipsTested bool
}

func (m *manager) status() uint32 {
	switch {
	case m.running:
		return regs.SelfTestRunning
	case !m.tested:
		return 0
	case m.passed:
		return regs.SelfTestPassed
	}
	return regs.SelfTestFailed
}

// reset begins a reset. From here on registers show that it runs; all the rest is the manager's.
func (c *Card) reset(kind resetKind) {
	m := &c.manager
	m.todo |= kind
	if kind == resetFIPS {
		c.destroy(volatileKey)
		c.phase = phaseInit
		m.fipsTested = false
		c.manageC.Signal()
		return
	}
	if c.phase != phaseReset {
		m.prev = c.phase
	}
	c.phase = phaseReset
	c.dropAll()
	if kind&resetDevice != 0 {
		c.irq.stopTimers()
	}
	if kind&(resetFull|resetPower) != 0 || c.faults.hang <= HangSoft || c.faults.hang == HangFLR && kind&resetFLR != 0 {
		if c.faults.hang != HangForever {
			c.faults.hang = HangNone
		}
	}
	c.manageC.Signal()
}

// PowerCycle is what a platform reset does to the card: configuration space and all volatile state are as after power-up.
func (c *Card) PowerCycle() {
	c.lock()
	defer c.unlock()
	c.resetConfig()
	c.reset(resetPower)
}

// manageLoop carries out what reset and startSelfTest ask for.
func (c *Card) manageLoop() {
	c.lock()
	defer c.unlock()
	m := &c.manager
	for !c.stop {
		switch {
		case c.faults.hang != HangNone || m.todo == 0 && m.test == 0:
			c.wait(c.manageC)
		case m.todo&resetWork != 0 && (c.dma.busy > 0 || c.queue.posting):
			c.wait(c.progress)
		case m.todo != 0:
			c.manageReset()
		default:
			c.manageTest()
		}
	}
}

// manageReset clears what the pending resets clear, and goes through INIT if one of them does.
func (c *Card) manageReset() {
	m := &c.manager
	kinds := m.todo
	m.todo = 0
	if kinds&resetWork != 0 {
		c.clearFor(kinds)
	}
	if kinds&^resetRing == 0 && !m.init {
		c.phase = m.prev
		c.progress.Broadcast()
		return
	}
	c.phase = phaseInit
	m.init, m.tested = true, false
	m.test = 0
	if kinds&resetDevice != 0 {
		c.fwDead = false
		c.restartQRNG()
	}
	failed, again := c.selfTest(regs.TestsStartup, true)
	if again {
		return
	}
	m.init = false
	m.fipsTested = failed == 0 && c.fips()
	switch {
	case c.faults.tampered:
		c.phase = phaseZeroized
	case failed != 0 || c.fwDead:
		c.phase = phaseError
	default:
		c.phase = phaseOK
	}
	c.leaveShutdown()
	c.wakeAll()
}

// leaveShutdown ends the state after too much heat, if the card has cooled down; a reset calls it.
func (c *Card) leaveShutdown() {
	if c.thermal.state != regs.ThermShutdown {
		return
	}
	t := int32(c.get(regs.TempCore))
	if t >= int32(c.get(regs.TempCrit))-regs.ThermStep {
		c.phase = phaseShutdown
		c.halt(regs.HaltThermal)
		return
	}
	next := uint32(regs.ThermNormal)
	if t >= int32(c.get(regs.TempWarn))-regs.ThermStep {
		next = regs.ThermWarning
	}
	c.setHeat(next)
}

// manageTest runs the self-tests that a register asked for.
func (c *Card) manageTest() {
	mask := c.manager.test
	c.manager.test = 0
	if mask == 0 {
		return
	}
	failed, again := c.selfTest(mask, false)
	if again {
		return
	}
	if failed != 0 && c.phase == phaseOK {
		c.phase = phaseError
	}
	c.raise(regs.CauseSelfTestDone)
}

// startSelfTest asks for a run; ignored while one is under way.
func (c *Card) startSelfTest(mask regs.SelfTest) {
	mask &= regs.TestsAll
	if mask == 0 || c.manager.running || c.manager.test != 0 || c.phase == phaseInit {
		return
	}
	c.manager.test = mask
	c.set(regs.SelfTestCtrl, uint32(mask))
	c.manageC.Signal()
	c.progress.Broadcast()
}

// selfTest runs the tests of mask and keeps their result; called with the lock, which it gives up meanwhile. again means
// that a reset came between and the result is void.
func (c *Card) selfTest(mask regs.SelfTest, startup bool) (failed regs.SelfTest, again bool) {
	m := &c.manager
	m.running = true
	m.run++
	run := m.run
	c.set(regs.SelfTestCtrl, uint32(mask))
	inject := c.faults.selfTest
	begin := time.Now()
	c.unlock()
	failed = c.runSelfTests(mask, startup) | mask&inject
	c.lock()
	if m.run != run {
		return 0, true
	}
	m.running = false
	if m.todo&resetWork != 0 || c.stop {
		return 0, true
	}
	c.endSelfTest(failed, time.Since(begin))
	return failed, false
}

func (c *Card) endSelfTest(failed regs.SelfTest, took time.Duration) {
	m := &c.manager
	m.tested, m.passed = true, failed == 0
	c.set(regs.SelfTestResult, uint32(failed))
	c.set(regs.SelfTestUS, uint32(max(1, took.Microseconds())))
	if failed != 0 {
		c.fail(regs.ErrSelfTest, uint16(regs.SelfTestResult), regs.DetailSelfTestRequired, 0)
	}
	c.progress.Broadcast()
}

// clearFor applies the table of resets.
func (c *Card) clearFor(kinds resetKind) {
	now := time.Now()
	c.set(regs.Scratch0, 0)
	c.set(regs.CMDQCtrl, 0)
	c.set(regs.RSPQCtrl, 0)
	c.set(regs.CMDQErr, 0)
	c.set(regs.RSPQErr, 0)
	c.clearCMDQ()
	c.clearRSPQ()
	if kinds&resetDevice != 0 {
		fips := uint32(c.control() & regs.ControlFIPS)
		for _, info := range regs.Registers() {
			if !keeps(info.Reg, kinds) {
				c.set(info.Reg, info.Reset)
			}
		}
		if kinds&resetHard == 0 {
			c.set(regs.DevControl, fips)
		}
		c.irq.stopTimers()
		c.irq.sent = 0
		c.manager.fipsTested = false
		c.destroy(volatileKey)
		if c.faults.ecc == ECCUncorrected {
			c.faults.ecc = ECCNone
		}
	}
	if kinds&resetHard != 0 {
		c.perf = perf{since: now}
		c.faults.tampered = false
	}
	if kinds&(resetFull|resetPower) != 0 {
		c.uptime, c.heart = now, now
	}
	if kinds&resetPower != 0 {
		c.powerUp = now
		c.powerUpRegs()
	}
	c.showKeys()
	cause := causeOf(kinds)
	if kinds&resetDevice != 0 {
		c.dropStage()
		if f := &c.fw; kinds&(resetFull|resetPower) == 0 && f.state != regs.FWTrial && f.state != regs.FWActivated {
			f.state = regs.FWIdle
		}
	}
	if kinds&(resetFull|resetPower) != 0 {
		if special := c.bootFirmware(); special != 0 {
			cause = special
		}
	}
	c.setResetCause(cause)
	c.superviseHeat()
}

func causeOf(kinds resetKind) uint8 {
	switch {
	case kinds&resetPower != 0:
		return regs.CausePowerUp
	case kinds&resetFull != 0:
		return regs.CauseFull
	case kinds&resetFLR != 0:
		return regs.CauseFLR
	case kinds&resetSoft != 0:
		return regs.CauseSoft
	}
	return regs.CauseRing
}

func (c *Card) setResetCause(cause uint8) {
	_, n := regs.SplitResetCause(c.get(regs.ResetCause))
	switch cause {
	case regs.CauseSoft:
		n++
	case regs.CauseAbort:
		c.set(regs.Scratch0, 0)
	case regs.CausePowerUp, regs.CauseFull:
		n = 0
	}
	c.set(regs.ResetCause, uint32(n)<<8|uint32(cause))
}

// keeps reports whether a register survives: what the hardware measures or is does always, and a soft reset leaves
// errors, thresholds and counters.
func keeps(r regs.Reg, kinds resetKind) bool {
	in := func(from, to regs.Reg) bool { return r >= from && r <= to }
	switch {
	case in(regs.DevID, regs.DevRev), in(regs.DevCaps, regs.SerialHi), in(regs.TempCore, regs.TempVRM),
		in(regs.VCoreMV, regs.PowerMW), in(regs.ResetCause, regs.ResetCause), in(regs.RegionFirmware, regs.RegionFirmware+0xFF):
		return true
	case kinds&resetHard != 0:
		return false
	}
	return in(regs.OpsOKLo, regs.OpsFailHi) || in(regs.TempWarn, regs.TempCrit) || r == regs.Scratch1 || r == regs.PowerLimitMW ||
		in(regs.ErrStatus, regs.ErrCount) || in(regs.CMDQFetched, regs.CMDQDone) || in(regs.RSPQPosted, regs.RSPQStalls) ||
		in(regs.DMAError, regs.DMAErrTag) || in(regs.DMARdBytesLo, regs.DMAXfersHi) || in(regs.NTTFwdLo, regs.NTTCyclesHi) ||
		in(regs.QRNGBiasCount, regs.QRNGBiasCount) || in(regs.QRNGRCTFails, regs.QRNGAPTFails) ||
		in(regs.QRNGReseeds, regs.QRNGBytesHi) || in(regs.RegionPerf, regs.RegionPerf+0xFF)
}

// powerUpRegs sets the registers that come from the configuration.
func (c *Card) powerUpRegs() {
	keep := map[regs.Reg]uint32{} // what the flash memory holds
	for _, r := range []regs.Reg{regs.FWMinSecVer, regs.FWBootTries, regs.FWError} {
		keep[r] = c.get(r)
	}
	for _, info := range regs.Registers() {
		c.set(info.Reg, info.Reset)
	}
	g := &c.cfg
	c.set(regs.DevCaps, uint32(modelCaps))
	for r, v := range keep {
		c.set(r, v)
	}
	c.set(regs.FWMinSecVer, max(c.get(regs.FWMinSecVer), g.FWSecVer))
	c.set64(regs.SerialLo, g.Serial)
	c.set(regs.TempCore, uint32(g.TempCore))
	c.set(regs.TempMem, uint32(g.TempMem))
	c.set(regs.TempBoard, uint32(g.TempBoard))
	c.set(regs.TempVRM, uint32(g.TempVRM))
	c.set(regs.VCoreMV, g.VCoreMV)
	c.set(regs.VAuxMV, g.VAuxMV)
	c.set(regs.PowerMW, g.PowerMW)
}
