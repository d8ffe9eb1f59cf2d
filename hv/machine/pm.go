package machine

import (
	"encoding/binary"
	"sync"
	"time"
)

// Registers of ACPI power management (ACPI 6.5, 4.8.3), by offset from portPM.
const (
	pmStatus  = 0 // PM1a event block
	pmEnable  = 2
	pmControl = 4
	pmTimer   = 8
	pmPorts   = 12

	pmPowerButton = 1 << 8
	pmEvents      = 1<<0 | 1<<5 | pmPowerButton | 1<<9 | 1<<10
	pmWake        = 1 << 15

	pmSCIEnable  = 1 << 0
	pmSleepType  = 7 << 10
	pmSleep      = 1 << 13
	sleepTypeOff = 5

	pmTimerHz = 3579545
)

// powerManagement has the power button, the sleep control and the PM timer, 32
// bits wide and without interrupt.
type powerManagement struct {
	line func(high bool)

	mu             sync.Mutex
	status, enable uint16
	control        uint16
	// General purpose events, see gpe.go.
	events, eventsOn uint16

	level bool
	start time.Time
}

func newPowerManagement(line func(high bool)) *powerManagement {
	return &powerManagement{line: line, start: time.Now()}
}

func (p *powerManagement) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.enable, p.control, p.start = 0, 0, 0, time.Now()
	p.events, p.eventsOn = 0, 0
	p.update()
}

func (p *powerManagement) pressPowerButton() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status |= pmPowerButton
	p.update()
}

// update drives the SCI; p.mu is held.
func (p *powerManagement) update() {
	if level := p.status&p.enable&pmEvents != 0 || p.events&p.eventsOn != 0; level != p.level {
		p.level = level
		p.line(level)
	}
}

// ticks is the PM timer. Seconds and the rest are apart, so that nothing
// overflows.
func (p *powerManagement) ticks() uint32 {
	d := time.Since(p.start)
	return uint32(uint64(d/time.Second)*pmTimerHz + uint64(d%time.Second)*pmTimerHz/uint64(time.Second))
}

func (p *powerManagement) byteAt(off uint16) byte {
	var v uint32
	switch {
	case off < pmEnable:
		v = uint32(p.status)
	case off < pmControl:
		v = uint32(p.enable)
		off -= pmEnable
	case off < pmTimer:
		// There is no SMI command port, so ACPI mode is always on.
		v = uint32(p.control | pmSCIEnable)
		off -= pmControl
	default:
		v = p.ticks()
		off -= pmTimer
	}
	return byte(v >> (8 * off))
}

func (p *powerManagement) readPort(off uint16, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off == pmTimer && len(data) == 4 { // all bytes of one moment
		binary.LittleEndian.PutUint32(data, p.ticks())
		return
	}
	for i := range data {
		data[i] = 0xff
		if at := off + uint16(i); at < pmPorts {
			data[i] = p.byteAt(at)
		}
	}
}

func (p *powerManagement) writePort(off uint16, data []byte) eventKind {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, b := range data {
		v, shift := uint16(b), 8*((off+uint16(i))&1)
		switch at := off + uint16(i); {
		case at < pmEnable: // write one to clear
			p.status &^= v << shift
		case at < pmControl:
			p.enable = p.enable&^(0xff<<shift) | v<<shift
		case at < pmControl+2:
			p.control = p.control&^(0xff<<shift) | v<<shift
		}
	}
	p.update()
	if p.control&pmSleep == 0 {
		return 0
	}
	p.control &^= pmSleep // it reads as zero
	if p.control&pmSleepType>>10 == sleepTypeOff {
		return eventPowerOff
	}
	p.status |= pmWake // any other sleep ends at once
	return 0
}
