package model

import "quantavirt/quac100/regs"

// auxLow is the auxiliary supply in millivolts below which the card says that it is low; 3300 is right.
const auxLow = 3000

// thermal is the heat and power supervision.
type thermal struct {
	state     uint32 // THERM_STATE
	throttled bool
	powerHigh bool
}

func (c *Card) writeThreshold(r regs.Reg, v uint32) {
	limit := int64(tempShutdownCore)
	switch r {
	case regs.TempWarn:
		limit = int64(int32(c.get(regs.TempCrit)))
	case regs.PowerLimitMW:
		c.set(r, v)
		c.superviseHeat()
		return
	}
	if r == regs.TempCrit && int64(int32(v)) < int64(int32(c.get(regs.TempWarn)))+regs.ThermStep {
		return // the warning would no longer be below it
	}
	if int64(int32(v)) > limit-regs.ThermStep {
		return
	}
	c.set(r, v)
	c.superviseHeat()
}

// superviseHeat compares temperature and power with their limits. Falling temperatures leave a state only 5 degrees below
// the threshold that entered it; the critical state ends below the warning.
func (c *Card) superviseHeat() {
	t := int32(c.get(regs.TempCore))
	warn, crit := int32(c.get(regs.TempWarn)), int32(c.get(regs.TempCrit))
	state := c.thermal.state
	switch {
	case t >= tempShutdownCore:
		state = regs.ThermShutdown
	case state == regs.ThermShutdown && (c.phase == phaseShutdown || t >= crit-regs.ThermStep):
		// only a reset leaves it
	case t >= crit:
		state = regs.ThermCritical
	case t < warn-regs.ThermStep:
		state = regs.ThermNormal
	case state != regs.ThermCritical && (t >= warn || state == regs.ThermShutdown):
		state = regs.ThermWarning
	}
	c.setHeat(state)

	high := c.get(regs.PowerMW) > c.get(regs.PowerLimitMW)
	if high != c.thermal.powerHigh {
		c.thermal.powerHigh = high
		c.raise(regs.CausePower)
	}
}

func (c *Card) setHeat(state uint32) {
	if state == c.thermal.state {
		return
	}
	c.thermal.state = state
	c.raise(regs.CauseTemp)
	if throttled := state != regs.ThermNormal; throttled != c.thermal.throttled {
		c.thermal.throttled = throttled
		c.raise(regs.CauseThrottle)
	}
	if state == regs.ThermShutdown && c.phase != phaseShutdown {
		c.shutDown()
	}
}

// shutDown stops all work because of heat; what was in flight is lost.
func (c *Card) shutDown() {
	if c.phase == phaseOK || c.phase == phaseError || c.phase == phaseZeroized {
		c.phase = phaseShutdown
	}
	c.dropAll()
	c.halt(regs.HaltThermal)
	c.fail(regs.ErrThermalShutdown, uint16(regs.TempCore), regs.DetailThermal, 0)
	c.raise(regs.CauseCMDQHalt)
}
