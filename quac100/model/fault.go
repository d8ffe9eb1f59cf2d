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

// DropInterrupts loses the next n messages.
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
