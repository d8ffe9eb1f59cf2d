package serial

import (
	"bytes"
	"errors"
	"testing"

	"quantavirt/internal/qverr"
)

type rig struct {
	*UART
	out  bytes.Buffer
	line bool
	ups  int
}

func newRig() *rig {
	r := &rig{}
	r.UART = New(&r.out, func(high bool) {
		r.line = high
		if high {
			r.ups++
		}
	})
	return r
}

// start does what Linux's 8250 driver does at open.
func (r *rig) start() {
	r.WritePort(regIIR, 0x81) // FIFO on, trigger 8
	r.WritePort(regMCR, mcrDTR|mcrRTS|mcrOut2)
	r.WritePort(regIER, ierReceive|ierLine)
}

func TestOutput(t *testing.T) {
	r := newRig()
	r.start()
	for _, c := range []byte("hello\n") {
		if r.ReadPort(regLSR)&(lsrTHREmpty|lsrIdle) != lsrTHREmpty|lsrIdle {
			t.Fatal("the transmitter is busy")
		}
		r.WritePort(regData, c)
	}
	if r.out.String() != "hello\n" {
		t.Fatalf("%q", r.out.String())
	}
	if r.line {
		t.Fatal("interrupt without IER bit 1")
	}
}

func TestTransmitInterrupt(t *testing.T) {
	r := newRig()
	r.start()
	r.WritePort(regIER, ierTransmit)
	if !r.line || r.ReadPort(regIIR) != iirFIFO|iirTransmit {
		t.Fatal("no interrupt for an empty transmitter")
	}
	if r.line || r.ReadPort(regIIR) != iirFIFO|iirNone {
		t.Fatal("reading IIR did not take the interrupt away")
	}
	r.WritePort(regData, 'x')
	if !r.line {
		t.Fatal("no interrupt after a character")
	}
	r.WritePort(regIER, 0)
	if r.line {
		t.Fatal("the line stays high")
	}
}

func TestInput(t *testing.T) {
	r := newRig()
	if _, err := r.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	r.start() // switching the FIFO on clears the one byte that was received
	if _, err := r.Write([]byte("0123456789abcdefghij")); err != nil {
		t.Fatal(err)
	}
	if !r.line || r.ReadPort(regIIR) != iirFIFO|iirReceive {
		t.Fatal("no receive interrupt")
	}
	var got []byte
	for r.ReadPort(regLSR)&lsrData != 0 {
		got = append(got, r.ReadPort(regData))
	}
	if string(got) != "arly0123456789abcdefghij" {
		t.Fatalf("%q", got)
	}
	if r.line {
		t.Fatal("the line stays high")
	}
	r.Write([]byte("x"))
	if r.ReadPort(regIIR) != iirFIFO|iirTimeout || !r.line {
		t.Fatal("no timeout interrupt below the trigger level")
	}
}

func TestInputIsBounded(t *testing.T) {
	r := newRig()
	r.start()
	n, err := r.Write(make([]byte, inputLimit+100))
	if n != inputLimit || !errors.Is(err, qverr.Again) {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestLoopback(t *testing.T) {
	r := newRig()
	r.WritePort(regMCR, mcrLoop|mcrOut2|mcrRTS)
	if v := r.ReadPort(regMSR); v != msrDCD|msrCTS {
		t.Fatalf("modem status %#x", v)
	}
	r.WritePort(regData, 0x5a)
	r.WritePort(regData, 0x5b)
	if v := r.ReadPort(regLSR); v&lsrOverrun == 0 {
		t.Fatalf("line status %#x: no overrun", v)
	}
	if v := r.ReadPort(regData); v != 0x5a || r.out.Len() != 0 {
		t.Fatalf("%#x, %q", v, r.out.String())
	}
}

func TestRegisters(t *testing.T) {
	r := newRig()
	r.WritePort(regSCR, 0xa5)
	r.WritePort(regLCR, lcrDLAB|3)
	r.WritePort(regData, 1)
	r.WritePort(regIER, 2)
	if lo, hi := r.ReadPort(regData), r.ReadPort(regIER); lo != 1 || hi != 2 {
		t.Fatalf("divisor %d %d", hi, lo)
	}
	r.WritePort(regLCR, 3)
	if v := r.ReadPort(regIER); v != 0 {
		t.Fatalf("IER %#x", v)
	}
	r.WritePort(regIER, 0xff)
	if v := r.ReadPort(regIER); v != 0xf {
		t.Fatalf("IER %#x: upper bits must stay 0, Linux tells UARTs apart by them", v)
	}
	if v := r.ReadPort(regSCR); v != 0xa5 {
		t.Fatalf("scratch %#x", v)
	}
	r.Reset()
	if r.ReadPort(regSCR) != 0 || r.ReadPort(regIER) != 0 || r.line {
		t.Fatal("reset keeps state")
	}
}
