package virtio_test

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/internal/driver"
)

// echo is a device with two queues: what comes in on the first goes back in the
// same request, reversed. Its second queue is never used.
type echo struct {
	worker     virtio.Worker
	host       virtio.Host
	space      [16]byte
	features   uint64
	active     atomic.Bool
	failing    bool
	written    []byte
	writtenOff uint32
}

func newEcho() *echo {
	e := &echo{}
	copy(e.space[:], "0123456789abcdef")
	e.worker.Handle = func(c *virtio.Chain) (uint32, error) {
		buf := make([]byte, virtio.Len(c.Read))
		c.CopyOut(buf, 0)
		for i, j := 0, len(buf)-1; i < j; i, j = i+1, j-1 {
			buf[i], buf[j] = buf[j], buf[i]
		}
		return uint32(c.CopyIn(buf)), nil
	}
	return e
}

const echoFeature = 1 << 3

func (e *echo) Type() uint16                    { return virtio.TypeEntropy }
func (e *echo) Features() uint64                { return echoFeature }
func (e *echo) QueueSizes() []uint16            { return []uint16{64, 16} }
func (e *echo) ReadConfig(off uint32, p []byte) { virtio.ConfigBytes(e.space[:], off, p) }
func (e *echo) WriteConfig(off uint32, p []byte) {
	e.writtenOff, e.written = off, append([]byte(nil), p...)
}

func (e *echo) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	if e.failing {
		return errors.New("no")
	}
	e.features, e.host = features, host
	e.active.Store(true)
	if queues[0] != nil {
		e.worker.Start(queues[0], host)
	}
	return nil
}

func (e *echo) Deactivate() {
	e.worker.Stop()
	e.active.Store(false)
}

func (e *echo) Pause() error  { e.worker.Pause(); return nil }
func (e *echo) Resume() error { e.worker.Resume(); return nil }

func TestEcho(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx, virtio.FeatureEventIdx | virtio.FeatureIndirect} {
		e := newEcho()
		d := driver.New(t, e, driver.NewMemory(t))
		d.Start(echoFeature | features)
		if e.features != echoFeature|features|virtio.FeatureVersion1 {
			t.Errorf("features %#x", e.features)
		}
		if !d.Transport.Ready() {
			t.Error("not ready")
		}
		q := d.Queues[0]
		for range 200 { // more than the queue holds
			in := q.In(5)
			if n := q.Do(q.Out([]byte("hel")), q.Out([]byte("lo")), in); n != 5 || string(q.Bytes(in)) != "olleh" {
				t.Fatalf("%d bytes: %q", n, q.Bytes(in))
			}
		}
	}
}

func TestNegotiation(t *testing.T) {
	d := driver.New(t, newEcho(), driver.NewMemory(t))
	want := uint64(echoFeature) | virtio.FeatureIndirect | virtio.FeatureEventIdx | virtio.FeatureVersion1
	if f := d.Offered(); f != want {
		t.Errorf("offered %#x, want %#x", f, want)
	}
	for _, tc := range []struct {
		features uint64
		ok       bool
	}{
		{virtio.FeatureVersion1, true},
		{want, true},
		{0, false},                             // a legacy driver
		{echoFeature, false},                   // still one
		{virtio.FeatureVersion1 | 1<<4, false}, // not offered
		{virtio.FeatureVersion1 | 1<<63, false},
	} {
		if ok := d.Negotiate(tc.features); ok != tc.ok {
			t.Errorf("features %#x: %v", tc.features, ok)
		}
		if !tc.ok {
			d.SetStatus(driver.Acknowledge | driver.DriverLoad | driver.FeaturesOK | driver.DriverOK)
			if d.Status()&driver.DriverOK != 0 || d.Transport.Ready() {
				t.Errorf("features %#x: the device started", tc.features)
			}
		}
	}
}

func TestRegisters(t *testing.T) {
	e := newEcho()
	d := driver.New(t, e, driver.NewMemory(t))
	if vendor, device := d.Config(0, 2), d.Config(2, 2); vendor != 0x1af4 || device != 0x1040+virtio.TypeEntropy {
		t.Errorf("%04x:%04x", vendor, device)
	}
	if n := d.Read(1, 18, 2); n != 2 {
		t.Errorf("%d queues", n)
	}
	// A queue that does not exist has size 0 and swallows writes.
	d.Write(1, 22, 2, 9)
	d.Write(1, 28, 2, 1)
	d.Write(1, 32, 4, 0x1000)
	if d.Read(1, 24, 2) != 0 || d.Read(1, 28, 2) != 0 || d.Read(1, 32, 4) != 0 {
		t.Error("queue 9 exists")
	}
	d.Write(1, 22, 2, 1)
	for _, size := range []uint64{0, 3, 17, 32} {
		d.Write(1, 24, 2, size)
		if got := d.Read(1, 24, 2); got != 16 {
			t.Errorf("size %d gave %d", size, got)
		}
	}
	d.Write(1, 24, 2, 8)
	if got := d.Read(1, 24, 2); got != 8 {
		t.Errorf("size 8 gave %d", got)
	}
	// 64-bit fields as one write or as two.
	d.Write(1, 40, 8, 0x1_2345_6780)
	if lo, hi := d.Read(1, 40, 4), d.Read(1, 44, 4); lo != 0x2345_6780 || hi != 1 {
		t.Errorf("%#x %#x", hi, lo)
	}
	// A vector that does not exist reads back as none.
	d.Write(1, 26, 2, 3)
	if v := d.Read(1, 26, 2); v != 0xffff {
		t.Errorf("vector %#x", v)
	}
	d.Write(1, 16, 2, 2)
	if v := d.Read(1, 16, 2); v != 2 {
		t.Errorf("vector %#x", v)
	}
	// An enabled queue stays as it is, until the reset.
	d.Write(1, 28, 2, 1)
	d.Write(1, 24, 2, 4)
	d.Write(1, 40, 4, 0)
	d.Write(1, 28, 2, 0)
	if d.Read(1, 24, 2) != 8 || d.Read(1, 40, 4) != 0x2345_6780 || d.Read(1, 28, 2) != 1 {
		t.Error("an enabled queue was changed")
	}
	d.SetStatus(0)
	d.Write(1, 22, 2, 1)
	if d.Read(1, 24, 2) != 16 || d.Read(1, 40, 8) != 0 || d.Read(1, 28, 2) != 0 || d.Read(1, 16, 2) != 0xffff {
		t.Error("reset leaves something")
	}
}

func TestDeviceConfig(t *testing.T) {
	e := newEcho()
	d := driver.New(t, e, driver.NewMemory(t))
	if v := d.Read(4, 4, 4); v != uint64(binary.LittleEndian.Uint32([]byte("4567"))) {
		t.Errorf("%#x", v)
	}
	if v := d.Read(4, 14, 4); v != uint64(binary.LittleEndian.Uint16([]byte("ef"))) {
		t.Errorf("over the end: %#x", v)
	}
	d.Write(4, 8, 2, 0xbeef)
	if e.writtenOff != 8 || binary.LittleEndian.Uint16(e.written) != 0xbeef {
		t.Errorf("%d %x", e.writtenOff, e.written)
	}
	d.Start(0)
	before := d.Read(1, 21, 1)
	d.Write(1, 16, 2, 0)
	e.host.ConfigChanged()
	if after := d.Read(1, 21, 1); after == before {
		t.Error("the generation did not change")
	}
}

func TestActivationFails(t *testing.T) {
	e := newEcho()
	e.failing = true
	d := driver.New(t, e, driver.NewMemory(t))
	d.Start(0)
	if d.Status()&driver.NeedsReset == 0 || d.Transport.Ready() || len(d.Logs()) != 1 {
		t.Errorf("status %#x, logs %v", d.Status(), d.Logs())
	}
	e.failing = false
	d.Start(0)
	if !d.Transport.Ready() {
		t.Error("a reset does not help")
	}
}

func TestQueueOutsideOfMemory(t *testing.T) {
	d := driver.New(t, newEcho(), driver.NewMemory(t))
	if !d.Negotiate(virtio.FeatureVersion1) {
		t.Fatal("refused")
	}
	d.Write(1, 22, 2, 0)
	d.Write(1, 32, 8, 0xffff_ffff_ffff_0000)
	d.Write(1, 28, 2, 1)
	d.SetStatus(driver.Acknowledge | driver.DriverLoad | driver.FeaturesOK | driver.DriverOK)
	if d.Status()&driver.NeedsReset == 0 {
		t.Errorf("status %#x", d.Status())
	}
}

func TestBrokenQueueStopsDevice(t *testing.T) {
	e := newEcho()
	d := driver.New(t, e, driver.NewMemory(t))
	d.Start(0)
	q := d.Queues[0]
	q.SetAvail(5000)
	q.Kick()
	if !d.Broken() {
		t.Fatal("a broken queue goes on")
	}
	d.Start(0)
	q = d.Queues[0]
	in := q.In(3)
	if q.Do(q.Out([]byte("abc")), in); string(q.Bytes(in)) != "cba" {
		t.Errorf("%q", q.Bytes(in))
	}
}

// TestWindow uses the device as SeaBIOS does when its BAR is above 4 GiB.
func TestWindow(t *testing.T) {
	d := driver.New(t, newEcho(), driver.NewMemory(t))
	read, write := d.Window(1, 20, 1)
	write(driver.Acknowledge)
	if v := read(); v != driver.Acknowledge || d.Status() != driver.Acknowledge {
		t.Errorf("status %#x", v)
	}
	read, _ = d.Window(1, 18, 2)
	if v := read(); v != 2 {
		t.Errorf("%d queues", v)
	}
	// A window that points nowhere: wrong length, past the BAR, another BAR.
	for _, at := range []struct {
		off uint64
		n   int
	}{{0, 8}, {0xffff_0000, 4}, {1, 4}} {
		_, write := d.Window(1, at.off, at.n)
		write(0)
	}
	if d.Status() != driver.Acknowledge {
		t.Errorf("status %#x", d.Status())
	}
}

// TestWithoutMSIX polls as a boot loader does: notifications as register writes,
// interrupts as bits of the ISR.
func TestWithoutMSIX(t *testing.T) {
	d := driver.New(t, newEcho(), driver.NewMemory(t))
	d.DisableMSIX()
	d.Start(0)
	q := d.Queues[0]
	in := q.In(2)
	q.Add(q.Out([]byte("xy")), in)
	d.Write(2, 0, 2, 0) // not through the doorbell
	for range 10_000 {
		if _, _, ok := q.Done(); ok {
			break
		}
		d.Pause()
	}
	if string(q.Bytes(in)) != "yx" {
		t.Fatalf("%q", q.Bytes(in))
	}
	isr := uint64(0)
	for range 10_000 {
		if isr |= d.Read(3, 0, 1); isr != 0 {
			break
		}
		d.Pause()
	}
	if isr != 1 || d.Read(3, 0, 1) != 0 {
		t.Errorf("ISR %#x", isr)
	}
}

func TestResetWhileBusy(t *testing.T) {
	e := newEcho()
	d := driver.New(t, e, driver.NewMemory(t))
	for range 50 {
		d.Start(virtio.FeatureEventIdx)
		q := d.Queues[0]
		for range 20 {
			q.Add(q.Out([]byte("abc")), q.In(3))
		}
		q.Kick()
		d.SetStatus(0)
		if e.active.Load() || d.Status() != 0 {
			t.Fatal("still active after reset")
		}
		// Nothing may be written any more.
		idx, err := d.Mem.Uint16(q.Used + 2)
		if err != nil {
			t.Fatal(err)
		}
		d.Pause()
		if now, _ := d.Mem.Uint16(q.Used + 2); now != idx {
			t.Fatal("a queue was touched after the reset")
		}
	}
}
