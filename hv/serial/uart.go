package serial

import (
	"io"
	"sync"

	"quantavirt/internal/qverr"
)

// Ports is the number of I/O ports that a UART takes.
const Ports = 8

// Registers by offset; some share one.
const (
	regData = 0 // RBR, THR; divisor low while DLAB
	regIER  = 1 // divisor high while DLAB
	regIIR  = 2 // FCR when written
	regLCR  = 3
	regMCR  = 4
	regLSR  = 5
	regMSR  = 6
	regSCR  = 7
)

const (
	ierReceive  = 1 << 0
	ierTransmit = 1 << 1
	ierLine     = 1 << 2

	iirNone     = 0x01
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirLine     = 0x06
	iirTimeout  = 0x0c
	iirFIFO     = 0xc0

	fcrEnable  = 1 << 0
	fcrClearRx = 1 << 1

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3 // gates the interrupt on a PC
	mcrLoop = 1 << 4

	lsrData     = 1 << 0
	lsrOverrun  = 1 << 1
	lsrTHREmpty = 1 << 5
	lsrIdle     = 1 << 6

	msrCTS = 1 << 4
	msrDSR = 1 << 5
	msrRI  = 1 << 6
	msrDCD = 1 << 7

	fifoSize = 16
	// inputLimit bounds what was typed and not read by the guest yet.
	inputLimit = 64 << 10
)

// UART is one serial port.
type UART struct {
	out io.Writer
	irq func(high bool)

	mu      sync.Mutex
	input   []byte // typed, not received yet
	fifo    []byte // received, not read by the guest yet
	fifoOn  bool
	trigger int
	overrun bool
	thri    bool // a transmitter interrupt is due
	line    bool // level of the interrupt line
	divisor uint16

	ier, lcr, mcr, scr uint8
}

// New makes a UART that sends what the guest prints to out, which must not
// block, and drives its interrupt line through irq.
func New(out io.Writer, irq func(high bool)) *UART {
	u := &UART{out: out, irq: irq}
	u.Reset()
	return u
}

// Reset brings back the state after power-on. Input that the guest has not read
// is lost.
func (u *UART) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.input, u.fifo = nil, make([]byte, 0, fifoSize)
	u.fifoOn, u.trigger, u.overrun, u.thri = false, 1, false, false
	u.ier, u.lcr, u.mcr, u.scr, u.divisor = 0, 3, 0, 0, 12
	u.update()
}

// Write types p. It never blocks: when the guest does not read, it takes less
// than all and says QV_ERR_AGAIN.
func (u *UART) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := min(len(p), inputLimit-len(u.input))
	u.input = append(u.input, p[:n]...)
	u.receive()
	u.update()
	if n < len(p) {
		return n, qverr.New(qverr.Again, "the guest does not read its serial port")
	}
	return n, nil
}

// ReadPort serves a read of the guest at offset reg.
func (u *UART) ReadPort(reg uint16) uint8 {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.update()
	dlab := u.lcr&lcrDLAB != 0
	switch reg {
	case regData:
		if dlab {
			return uint8(u.divisor)
		}
		return u.pop()
	case regIER:
		if dlab {
			return uint8(u.divisor >> 8)
		}
		return u.ier
	case regIIR:
		return u.identify()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		v := u.lineStatus()
		u.overrun = false
		return v
	case regMSR:
		return u.modemStatus()
	default:
		return u.scr
	}
}

// WritePort serves a write of the guest at offset reg.
func (u *UART) WritePort(reg uint16, v uint8) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.update()
	dlab := u.lcr&lcrDLAB != 0
	switch {
	case reg == regData && dlab:
		u.divisor = u.divisor&0xff00 | uint16(v)
	case reg == regData:
		u.transmit(v)
	case reg == regIER && dlab:
		u.divisor = u.divisor&0xff | uint16(v)<<8
	case reg == regIER:
		if v&ierTransmit != 0 && u.ier&ierTransmit == 0 {
			u.thri = true // the transmitter is empty, now as ever
		}
		u.ier = v & 0xf
	case reg == regIIR:
		u.fifoControl(v)
	case reg == regLCR:
		u.lcr = v
	case reg == regMCR:
		u.mcr = v & 0x1f
		u.receive()
	case reg == regSCR:
		u.scr = v
	}
}

func (u *UART) transmit(v uint8) {
	u.thri = true
	if u.mcr&mcrLoop == 0 {
		_, _ = u.out.Write([]byte{v})
		return
	}
	if len(u.fifo) >= u.capacity() {
		u.overrun = true
		return
	}
	u.fifo = append(u.fifo, v)
}

func (u *UART) fifoControl(v uint8) {
	on := v&fcrEnable != 0
	if on != u.fifoOn || v&fcrClearRx != 0 {
		u.fifo = u.fifo[:0]
	}
	u.fifoOn, u.trigger = on, 1
	if on {
		u.trigger = [4]int{1, 4, 8, 14}[v>>6]
	}
	u.receive()
}

func (u *UART) capacity() int {
	if u.fifoOn {
		return fifoSize
	}
	return 1
}

// receive moves typed input into the FIFO, never more than fits: a real sender
// would be slower, or held back by flow control.
func (u *UART) receive() {
	if u.mcr&mcrLoop != 0 {
		return
	}
	n := min(len(u.input), u.capacity()-len(u.fifo))
	if n > 0 {
		u.fifo = append(u.fifo, u.input[:n]...)
		u.input = u.input[n:]
	}
	if len(u.input) == 0 {
		u.input = nil
	}
}

func (u *UART) pop() uint8 {
	if len(u.fifo) == 0 {
		return 0
	}
	v := u.fifo[0]
	u.fifo = append(u.fifo[:0], u.fifo[1:]...)
	u.receive()
	return v
}

// pending names the interrupt of highest priority.
func (u *UART) pending() uint8 {
	switch {
	case u.ier&ierLine != 0 && u.overrun:
		return iirLine
	case u.ier&ierReceive != 0 && len(u.fifo) >= u.trigger:
		return iirReceive
	case u.ier&ierReceive != 0 && len(u.fifo) > 0:
		// Fewer than the trigger level: no more will come by itself, so the
		// character timeout is over at once.
		return iirTimeout
	case u.ier&ierTransmit != 0 && u.thri:
		return iirTransmit
	}
	return iirNone
}

func (u *UART) identify() uint8 {
	v := u.pending()
	if v == iirTransmit {
		u.thri = false
	}
	if u.fifoOn {
		v |= iirFIFO
	}
	return v
}

func (u *UART) lineStatus() uint8 {
	v := uint8(lsrTHREmpty | lsrIdle)
	if len(u.fifo) > 0 {
		v |= lsrData
	}
	if u.overrun {
		v |= lsrOverrun
	}
	return v
}

func (u *UART) modemStatus() uint8 {
	if u.mcr&mcrLoop == 0 {
		return msrCTS | msrDSR | msrDCD
	}
	var v uint8
	for _, pair := range [...][2]uint8{{mcrDTR, msrDSR}, {mcrRTS, msrCTS}, {mcrOut1, msrRI}, {mcrOut2, msrDCD}} {
		if u.mcr&pair[0] != 0 {
			v |= pair[1]
		}
	}
	return v
}

// update drives the interrupt line. OUT2 gates it, except in loopback, where the
// pin is off.
func (u *UART) update() {
	high := u.pending() != iirNone && u.mcr&mcrOut2 != 0 && u.mcr&mcrLoop == 0
	if high != u.line {
		u.line = high
		u.irq(high)
	}
}
