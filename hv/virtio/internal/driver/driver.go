// Package driver is a guest's virtio driver for tests: it finds the device
// through configuration space and registers as Linux does, and can break every
// rule on purpose.
package driver

import (
	"encoding/binary"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/memory"
	"quantavirt/hv/pci"
	"quantavirt/hv/virtio"
)

// Status bits of a device.
const (
	Acknowledge = 1
	DriverLoad  = 2
	DriverOK    = 4
	FeaturesOK  = 8
	NeedsReset  = 64
)

const (
	memorySize = 8 << 20
	window     = 0xd000_0000
	slot       = 3
)

// Driver drives one device.
type Driver struct {
	TB        testing.TB
	Mem       *memory.Memory
	Bus       *pci.Bus
	Transport *virtio.Transport
	Queues    []*Queue

	host             *host
	caps             map[byte]structure
	windowCap        int
	notifyMultiplier uint32
	next             uint64 // free guest memory

	mu   sync.Mutex
	logs []error
}

type structure struct {
	addr   uint64
	length uint32
}

// NewMemory makes guest memory for a test.
func NewMemory(tb testing.TB) *memory.Memory {
	tb.Helper()
	mem, err := memory.New(memorySize)
	if err != nil {
		tb.Fatal(err)
	}
	return mem
}

// New puts dev on a bus and finds it there.
func New(tb testing.TB, dev virtio.Device, mem *memory.Memory) *Driver {
	tb.Helper()
	d := &Driver{TB: tb, Mem: mem, host: newHost(), caps: map[byte]structure{}, next: 0x10000}
	var err error
	if d.Transport, err = virtio.NewTransport("test", dev, virtio.ClassOther, mem, d.log); err != nil {
		tb.Fatal(err)
	}
	d.Bus = pci.NewBus(d.host, pci.Windows{Low: pci.Window{Base: window, End: 0xe000_0000}}, func(err error) { tb.Error(err) })
	if err := d.Bus.Add(slot, d.Transport.PCI()); err != nil {
		tb.Fatal(err)
	}
	if err := d.Bus.Place(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		d.Transport.Close()
		d.Bus.Close()
		mem.Close()
	})
	d.discover()
	return d
}

func (d *Driver) log(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs = append(d.logs, err)
}

// Logs is what the transport complained about.
func (d *Driver) Logs() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]error(nil), d.logs...)
}

// Config reads n bytes of configuration space.
func (d *Driver) Config(off uint64, n int) uint64 {
	var b [8]byte
	d.Bus.ReadECAM(slot<<15|off, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

// SetConfig writes n bytes of configuration space.
func (d *Driver) SetConfig(off uint64, n int, v uint64) {
	b := binary.LittleEndian.AppendUint64(nil, v)
	d.Bus.WriteECAM(slot<<15|off, b[:n])
}

// discover walks the capabilities (virtio 1.2, section 4.1.4).
func (d *Driver) discover() {
	const vendorCap, msixCap = 9, 0x11
	for at := d.Config(0x34, 1); at != 0; at = d.Config(at+1, 1) {
		switch d.Config(at, 1) {
		case vendorCap:
			d.virtioCap(at)
		case msixCap:
			d.SetConfig(at+2, 2, 1<<15) // enable
		}
	}
}

// DisableMSIX takes back what New switched on.
func (d *Driver) DisableMSIX() {
	for at := d.Config(0x34, 1); at != 0; at = d.Config(at+1, 1) {
		if d.Config(at, 1) == 0x11 {
			d.SetConfig(at+2, 2, 0)
		}
	}
}

// Pause lets the device run for a moment.
func (d *Driver) Pause() { _, _ = unix.Poll(nil, 1) }

func (d *Driver) virtioCap(at uint64) {
	kind := byte(d.Config(at+3, 1))
	if kind == 5 {
		d.windowCap = int(at)
		return
	}
	bar := d.Config(at+4, 1)
	base := d.Config(0x10+4*bar, 4)&^0xf | d.Config(0x14+4*bar, 4)<<32
	d.caps[kind] = structure{base + d.Config(at+8, 4), uint32(d.Config(at+12, 4))}
	if kind == 2 {
		d.notifyMultiplier = uint32(d.Config(at+16, 4))
	}
}

// Read reads n bytes at off of a structure: 1 common, 2 notify, 3 ISR, 4 device.
func (d *Driver) Read(kind byte, off uint64, n int) uint64 {
	d.TB.Helper()
	var b [8]byte
	if !d.Bus.ReadMMIO(d.caps[kind].addr+off, b[:n]) {
		d.TB.Fatalf("nothing at structure %d offset %d", kind, off)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// Write writes n bytes at off of a structure.
func (d *Driver) Write(kind byte, off uint64, n int, v uint64) {
	d.TB.Helper()
	b := binary.LittleEndian.AppendUint64(nil, v)
	if !d.Bus.WriteMMIO(d.caps[kind].addr+off, b[:n]) {
		d.TB.Fatalf("nothing at structure %d offset %d", kind, off)
	}
}

// Window accesses the BAR through the PCI_CFG capability.
func (d *Driver) Window(kind byte, off uint64, n int) (read func() uint64, write func(uint64)) {
	base := d.Config(0x10, 4)&^0xf | d.Config(0x14, 4)<<32
	at := uint64(d.windowCap)
	point := func() {
		d.SetConfig(at+4, 1, 0)
		d.SetConfig(at+8, 4, d.caps[kind].addr+off-base)
		d.SetConfig(at+12, 4, uint64(n))
	}
	read = func() uint64 { point(); return d.Config(at+16, n) }
	write = func(v uint64) { point(); d.SetConfig(at+16, n, v) }
	return read, write
}

// Status reads the device status.
func (d *Driver) Status() uint64 { return d.Read(1, 20, 1) }

// SetStatus writes it.
func (d *Driver) SetStatus(v uint64) { d.Write(1, 20, 1, v) }

// Offered reads the feature bits of the device.
func (d *Driver) Offered() uint64 {
	d.Write(1, 0, 4, 0)
	low := d.Read(1, 4, 4)
	d.Write(1, 0, 4, 1)
	return low | d.Read(1, 4, 4)<<32
}

// Negotiate resets the device and accepts features, up to FEATURES_OK, and
// tells whether the device agreed.
func (d *Driver) Negotiate(features uint64) bool {
	d.SetStatus(0)
	d.SetStatus(Acknowledge)
	d.SetStatus(Acknowledge | DriverLoad)
	d.Write(1, 8, 4, 0)
	d.Write(1, 12, 4, features&0xffff_ffff)
	d.Write(1, 8, 4, 1)
	d.Write(1, 12, 4, features>>32)
	d.SetStatus(Acknowledge | DriverLoad | FeaturesOK)
	return d.Status()&FeaturesOK != 0
}

// Start brings the device up with all its queues, the given features and those
// that every driver takes.
func (d *Driver) Start(features uint64) {
	d.TB.Helper()
	if !d.Negotiate(features | virtio.FeatureVersion1) {
		d.TB.Fatalf("features %#x were refused", features)
	}
	n := int(d.Read(1, 18, 2))
	d.Queues = nil
	for i := range n {
		d.Queues = append(d.Queues, d.setUpQueue(i, features))
	}
	d.SetStatus(Acknowledge | DriverLoad | FeaturesOK | DriverOK)
}

func (d *Driver) setUpQueue(i int, features uint64) *Queue {
	d.TB.Helper()
	d.Write(1, 22, 2, uint64(i))
	size := d.Read(1, 24, 2)
	q := &Queue{d: d, index: i, Size: int(size), eventIdx: features&virtio.FeatureEventIdx != 0,
		Desc: d.Alloc(16 * size), Avail: d.Alloc(6 + 2*size), Used: d.Alloc(6 + 8*size)}
	q.vector = min(i+1, d.Transport.PCI().MSIX().Vectors()-1)
	d.Write(1, 26, 2, uint64(q.vector))
	if d.Read(1, 26, 2) != uint64(q.vector) {
		d.TB.Fatalf("queue %d got no vector", i)
	}
	// Halves, as SeaBIOS and Linux write them.
	for off, addr := range map[uint64]uint64{32: q.Desc, 40: q.Avail, 48: q.Used} {
		d.Write(1, off, 4, addr&0xffff_ffff)
		d.Write(1, off+4, 4, addr>>32)
	}
	d.unmask(q.vector)
	d.Write(1, 28, 2, 1)
	return q
}

// unmask programs an MSI-X vector through the table.
func (d *Driver) unmask(vector int) {
	base := d.Config(0x10, 4)&^0xf | d.Config(0x14, 4)<<32
	const table = 0x4000
	for i, v := range []uint64{0xfee0_0000, 0, uint64(vector), 0} {
		b := binary.LittleEndian.AppendUint64(nil, v)
		d.Bus.WriteMMIO(base+table+uint64(16*vector+4*i), b[:4])
	}
}

// Alloc reserves n bytes of zeroed guest memory.
func (d *Driver) Alloc(n uint64) uint64 {
	d.TB.Helper()
	addr := d.next
	d.next += (n + 63) &^ 63
	if err := d.Mem.Zero(addr, n); err != nil {
		d.TB.Fatal(err)
	}
	return addr
}

// Interrupted waits up to ms milliseconds for vector and clears it.
func (d *Driver) Interrupted(vector, ms int) bool {
	fd := d.Transport.PCI().MSIX().EventFD(vector)
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, ms)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		var count [8]byte
		_, _ = unix.Read(fd, count[:])
		return true
	}
}
