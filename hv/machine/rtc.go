package machine

import (
	"sync"
	"time"
)

// Registers of the MC146818 clock chip.
const (
	rtcSeconds  = 0x00
	rtcMinutes  = 0x02
	rtcHours    = 0x04
	rtcWeekday  = 0x06
	rtcDay      = 0x07
	rtcMonth    = 0x08
	rtcYear     = 0x09
	rtcStatusA  = 0x0a
	rtcStatusB  = 0x0b
	rtcStatusC  = 0x0c
	rtcStatusD  = 0x0d
	rtcCentury  = 0x32
	rtcRAMSize  = 128
	rtcAMode    = 0x26 // 32.768 kHz, 1024 Hz rate, never in update
	rtcB24      = 0x02 // 24 hours; the other bits off: BCD
	rtcDValid   = 0x80
	rtcBMask    = 0x06 // binary and 24 hours may be chosen; interrupts may not
	rtcBBinary  = 0x04
	rtcIndexNMI = 0x80
)

// clockChip shows the host's time in UTC and keeps its RAM. Setting the time and
// its interrupts are not there: guests set and use clocks of their own.
type clockChip struct {
	mu    sync.Mutex
	index uint8
	ram   [rtcRAMSize]byte
	now   func() time.Time
}

func newClockChip() *clockChip {
	c := &clockChip{now: time.Now}
	c.ram[rtcStatusB] = rtcB24
	return c
}

// reset leaves the RAM alone: it has a battery.
func (c *clockChip) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = 0
}

func (c *clockChip) readPort(off uint16, data []byte) {
	ones(data)
	if off != 1 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	data[0] = c.read(c.index)
}

func (c *clockChip) writePort(off uint16, data []byte) eventKind {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off == 0 {
		c.index = data[0] &^ rtcIndexNMI
		return 0
	}
	switch c.index {
	case rtcSeconds, rtcMinutes, rtcHours, rtcWeekday, rtcDay, rtcMonth, rtcYear, rtcCentury, rtcStatusA, rtcStatusC, rtcStatusD:
	case rtcStatusB:
		c.ram[rtcStatusB] = data[0] & rtcBMask
	default:
		c.ram[c.index] = data[0]
	}
	return 0
}

func (c *clockChip) read(index uint8) byte {
	t := c.now().UTC()
	switch index {
	case rtcSeconds:
		return c.number(t.Second())
	case rtcMinutes:
		return c.number(t.Minute())
	case rtcHours:
		return c.hour(t.Hour())
	case rtcWeekday:
		return c.number(int(t.Weekday()) + 1)
	case rtcDay:
		return c.number(t.Day())
	case rtcMonth:
		return c.number(int(t.Month()))
	case rtcYear:
		return c.number(t.Year() % 100)
	case rtcCentury:
		return c.number(t.Year() / 100)
	case rtcStatusA:
		return rtcAMode
	case rtcStatusC:
		return 0
	case rtcStatusD:
		return rtcDValid
	}
	return c.ram[index]
}

func (c *clockChip) number(n int) byte {
	if c.ram[rtcStatusB]&rtcBBinary != 0 {
		return byte(n)
	}
	return byte(n/10<<4 | n%10)
}

func (c *clockChip) hour(h int) byte {
	if c.ram[rtcStatusB]&rtcB24 != 0 {
		return c.number(h)
	}
	pm := byte(0)
	if h >= 12 {
		pm = 0x80
	}
	return c.number((h+11)%12+1) | pm
}
