package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// Fault injection. All of it is reached from Go only; nothing in BAR0 leads here.

// Hang says what brings a hung firmware back.
type Hang uint8

// Kinds of hang.
const (
	HangNone    Hang = iota
	HangSoft         // any reset
	HangFLR          // a function level reset, a full one or a power cycle
	HangForever      // nothing; Hang(HangNone) ends it
)

// Bias is what is wrong with an entropy source.
type Bias struct {
	Stuck bool    // every sample is Value
	Part  float64 // this part of the samples is Value, 0 to 1
	Value byte
}

type faults struct {
	selfTest       regs.SelfTest
	hang           Hang
	heartbeat      uint32 // the value it stopped at
	dropInterrupts int
	dma            func(write bool, iova uint64, n int) error
	latency        func(regs.Opcode) time.Duration
	stuck          int // commands that will hang
	damage         Damage
	damaged        int // responses still to be damaged
	ecc            ECC
	absent         bool
	crypto         int // operations whose fault check will find a mismatch
	cryptoRow      int // mismatches in a row
	pairwise       bool
	tampered       bool
}

func (c *Card) inject(f func()) {
	c.lock()
	defer c.unlock()
	f()
	c.wakeAll()
	c.manageC.Signal()
	c.fillC.Signal()
	c.fwC.Signal()
	c.evaluate()
}

// FailSelfTest lets these self-tests fail from now on; 0 ends it.
func (c *Card) FailSelfTest(tests regs.SelfTest) { c.inject(func() { c.faults.selfTest = tests }) }

// FailPairwise lets the test after a key generation in FIPS mode fail.
func (c *Card) FailPairwise(on bool) { c.inject(func() { c.faults.pairwise = on }) }

// FailCrypto lets the fault check of the next n cryptographic operations find a mismatch.
func (c *Card) FailCrypto(n int) { c.inject(func() { c.faults.crypto = n }) }

// FailFirmware lets the firmware die: every command answers with a firmware error until a reset.
func (c *Card) FailFirmware() {
	c.inject(func() {
		c.fwDead = true
		if c.phase == phaseOK {
			c.phase = phaseError
		}
		c.fail(regs.ErrFirmware, uint16(regs.FWStatus), 0, 0)
		c.revert() // an image on trial does not survive it
	})
}

// Hang stops the firmware: heartbeat, commands, DMA and messages; registers still answer.
func (c *Card) Hang(h Hang) {
	c.inject(func() {
		if h == HangNone && c.faults.hang != HangNone {
			c.heart = time.Now().Add(-time.Duration(c.faults.heartbeat) * heartbeatPeriod)
		}
		c.faults.heartbeat = c.heartbeat()
		c.faults.hang = h
	})
}

// DropInterrupts loses the next n messages; a negative n all from now on.
func (c *Card) DropInterrupts(n int) { c.inject(func() { c.faults.dropInterrupts = n }) }

// FailDMA asks f about every access of the card; an error becomes a DMA fault. nil ends it.
func (c *Card) FailDMA(f func(write bool, iova uint64, n int) error) {
	c.inject(func() { c.faults.dma = f })
}

// SetLatency lets each command take at least as long as f says. nil ends it.
func (c *Card) SetLatency(f func(regs.Opcode) time.Duration) {
	c.inject(func() { c.faults.latency = f })
}

// SetTemperature changes a reading, one of TempCore, TempMem, TempBoard and TempVRM, in milli-degrees Celsius. Only the
// core's has consequences. It outlasts a power cycle.
func (c *Card) SetTemperature(sensor regs.Reg, milli int32) {
	c.inject(func() {
		switch sensor {
		case regs.TempCore:
			c.cfg.TempCore = milli
		case regs.TempMem:
			c.cfg.TempMem = milli
		case regs.TempBoard:
			c.cfg.TempBoard = milli
		case regs.TempVRM:
			c.cfg.TempVRM = milli
		default:
			return
		}
		c.set(sensor, uint32(milli))
		c.superviseHeat()
	})
}

// SetPower changes the power reading in milliwatts. It outlasts a power cycle.
func (c *Card) SetPower(mw uint32) {
	c.inject(func() {
		c.cfg.PowerMW = mw
		c.set(regs.PowerMW, mw)
		c.superviseHeat()
	})
}

// Tamper is what opening the case does: every key is destroyed and the card refuses all work.
func (c *Card) Tamper() {
	c.inject(func() {
		c.faults.tampered = true
		c.destroy(anyKey)
		if c.phase == phaseOK || c.phase == phaseError {
			c.phase = phaseZeroized
		}
		c.fail(regs.ErrTamper, 0, regs.DetailZeroized, 0)
		c.raise(regs.CauseTamper, regs.CauseKeyEvent)
	})
}

// BiasSource changes the samples of an entropy source, 0 to 7. The zero Bias ends it.
func (c *Card) BiasSource(source int, b Bias) {
	if source < 0 || source >= regs.QRNGSources {
		return
	}
	c.qrng.sample.Lock()
	c.qrng.sources[source].bias = b
	c.qrng.sample.Unlock()
	c.inject(func() {})
}

// HangCommands lets the next n commands end only by their time-out, or by an abort or a reset.
func (c *Card) HangCommands(n int) { c.inject(func() { c.faults.stuck = n }) }

// Damage is what is wrong with a response.
type Damage uint8

// Kinds of damage.
const (
	DamageNone   Damage = iota
	DamageTag           // of another command
	DamageOpcode        // of another operation
	DamageLength        // more bytes than there is room for
	DamageTwice         // the same response comes again, instead of the next one
)

// DamageResponses damages the next n responses.
func (c *Card) DamageResponses(d Damage, n int) {
	c.inject(func() { c.faults.damage, c.faults.damaged = d, n })
}

// damaged is the response as the fault makes it.
func (c *Card) damaged(r regs.Response) regs.Response {
	if c.faults.damaged <= 0 {
		return r
	}
	c.faults.damaged--
	switch c.faults.damage {
	case DamageTag:
		r.Tag ^= 0xA0000
	case DamageOpcode:
		r.Opcode ^= 0x0200
	case DamageLength:
		r.Out0Len += 1 << 20
	case DamageTwice:
		r.Tag -= 1 << 12 // a tag of this place that has had its answer
	}
	return r
}

// ECC is what the card's memory suffers from.
type ECC uint8

// Memory errors.
const (
	ECCNone        ECC = iota
	ECCCorrected       // shows in the health record
	ECCUncorrected     // every command answers "unknown error" until a reset
)

// SetECC injects a memory error. An uncorrected one ends with a reset.
func (c *Card) SetECC(e ECC) {
	c.inject(func() {
		c.faults.ecc = e
		if e == ECCUncorrected {
			c.fail(regs.ErrFatal, 0, 0, 0)
		}
	})
}

// SetAux changes the auxiliary supply in millivolts; 0 is a cable that is not plugged in. It outlasts a power cycle.
func (c *Card) SetAux(mv uint32) {
	c.inject(func() {
		c.cfg.VAuxMV = mv
		c.set(regs.VAuxMV, mv)
		c.raise(regs.CausePower)
	})
}

// SetPresent pulls the card out of its slot, or puts it back: registers read all ones, nothing is written any more, and what
// was in flight is lost. Back again it is as after power-up.
func (c *Card) SetPresent(on bool) {
	c.inject(func() {
		if on == !c.faults.absent {
			return
		}
		c.faults.absent = !on
		c.dropAll()
		if on {
			c.resetConfig()
			c.reset(resetPower)
		}
	})
}

// ClearFaults ends every fault that has no end of its own, except that it does not put back a card that was pulled out.
func (c *Card) ClearFaults() {
	for i := range regs.QRNGSources {
		c.BiasSource(i, Bias{})
	}
	c.Hang(HangNone)
	c.inject(func() {
		c.faults = faults{absent: c.faults.absent, tampered: c.faults.tampered, ecc: c.faults.ecc}
		c.fw.cut, c.fw.flash = false, false
	})
}
