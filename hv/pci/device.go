package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"quantavirt/internal/qverr"
)

// Offsets in the type 0 header, and bits of its registers.
const (
	regVendor     = 0x00
	regCommand    = 0x04
	regStatus     = 0x06
	regRevision   = 0x08
	regSubsystem  = 0x2c
	regBAR0       = 0x10
	regCapPointer = 0x34
	regIntLine    = 0x3c

	cmdMemory   = 1 << 1
	cmdMaster   = 1 << 2
	cmdIntxOff  = 1 << 10
	cmdWritable = cmdMemory | cmdMaster | cmdIntxOff

	statusCapList = 1 << 4

	configSize = 256
	firstCap   = 0x40
	barCount   = 6
)

// Capability ids.
const (
	CapMSI    = 0x05
	CapVendor = 0x09
	CapMSIX   = 0x11
)

// Identity is what the guest finds a driver by.
type Identity struct {
	Vendor, Device               uint16
	SubsystemVendor, SubsystemID uint16
	Class                        uint32 // base class, subclass, interface: 0xCCSSII
	Revision                     uint8
}

// BAR is one memory base address register.
type BAR struct {
	Size     uint64 // a power of two, at least 4096
	Is64     bool   // takes two registers and may lie above 4 GiB
	Prefetch bool
	Handler  BARHandler // nil when there is nothing but MSI-X
}

type bar struct {
	BAR
	used, upper bool // upper: the high half of the BAR before it
}

type capability struct {
	off, size int
	handler   ConfigHandler
}

type doorbell struct {
	bar  int
	off  uint64
	size int
	fd   int
	at   uint64 // where it is attached; noAddr when it is not
}

const noAddr = ^uint64(0)

// Device is one PCI function. It is built by one goroutine, then given to
// Bus.Add; only MSIX, MSI, AddDoorbell, RemoveDoorbell and ConfigBytes may be used after that.
type Device struct {
	name    string
	slot    int
	bus     *Bus
	config  [configSize]byte
	initial [configSize]byte // what reset brings back
	mask    [configSize]byte // writable bits
	clear   [configSize]byte // bits cleared by writing one
	bars    [barCount]bar
	caps    []capability
	nextCap int
	lastCap int // offset of the byte that points to the next capability
	msix    *MSIX

	msi *MSI

	mu        sync.Mutex // guards doorbells and memories
	doorbells []*doorbell
	memories  []*directMemory
	onReset   []func()
	onCommand func(command uint16)
}

// NewDevice makes a function called name (for errors and logs) without BARs.
func NewDevice(name string, id Identity) *Device {
	d := &Device{name: name, nextCap: firstCap, lastCap: regCapPointer}
	le := binary.LittleEndian
	le.PutUint16(d.config[regVendor:], id.Vendor)
	le.PutUint16(d.config[regVendor+2:], id.Device)
	le.PutUint32(d.config[regRevision:], id.Class<<8|uint32(id.Revision))
	le.PutUint16(d.config[regSubsystem:], id.SubsystemVendor)
	le.PutUint16(d.config[regSubsystem+2:], id.SubsystemID)
	le.PutUint16(d.mask[regCommand:], cmdWritable)
	d.mask[regIntLine] = 0xff
	return d
}

// Name is the name given to NewDevice.
func (d *Device) Name() string { return d.name }

// Slot is the device number on the bus, once added.
func (d *Device) Slot() int { return d.slot }

// MSIX is the interrupt table made by AddMSIX, nil without one.
func (d *Device) MSIX() *MSIX { return d.msix }

// OnReset calls f when the guest or the operator resets the machine, while no
// vCPU runs.
func (d *Device) OnReset(f func()) { d.onReset = append(d.onReset, f) }

// OnCommand calls f with the command register when the guest may have changed it,
// and when Place or a reset of the machine has set it. It must not access
// configuration space through the Bus.
func (d *Device) OnCommand(f func(command uint16)) { d.onCommand = f }

func (d *Device) tellCommand() {
	if d.onCommand != nil {
		d.onCommand(binary.LittleEndian.Uint16(d.config[regCommand:]))
	}
}

// AddBAR makes the BAR register index (0 to 5, and index+1 for a 64-bit BAR).
func (d *Device) AddBAR(index int, b BAR) error {
	last := index
	if b.Is64 {
		last++
	}
	switch {
	case index < 0 || last >= barCount || d.bars[index].used || d.bars[last].used:
		return qverr.New(qverr.Inval, "%s: BAR %d cannot be used", d.name, index)
	case b.Size < 4096 || bits.OnesCount64(b.Size) != 1 || !b.Is64 && b.Size > 1<<31:
		return qverr.New(qverr.Inval, "%s: BAR %d of %#x bytes", d.name, index, b.Size)
	}
	d.bars[index] = bar{BAR: b, used: true}
	flags, mask := uint64(0), ^(b.Size - 1)
	if b.Is64 {
		flags |= 4
		d.bars[last] = bar{used: true, upper: true}
	}
	if b.Prefetch {
		flags |= 8
	}
	reg := regBAR0 + 4*index
	binary.LittleEndian.PutUint32(d.config[reg:], uint32(flags))
	binary.LittleEndian.PutUint32(d.mask[reg:], uint32(mask))
	if b.Is64 {
		binary.LittleEndian.PutUint32(d.mask[reg+4:], uint32(mask>>32))
	}
	return nil
}

// SkipTo makes the next capability begin at off, a multiple of 4 after those that
// there are, as a driver may know where it is in the hardware.
func (d *Device) SkipTo(off int) error {
	if off < d.nextCap || off >= configSize || off%4 != 0 {
		return qverr.New(qverr.Inval, "%s: no capability can be at %#x", d.name, off)
	}
	d.nextCap = off
	return nil
}

// AddCapability appends a capability: body follows the two bytes id and next,
// mask (nil: all read-only) says which bits of body the guest may write. It
// returns the offset of the capability in configuration space.
func (d *Device) AddCapability(id uint8, body, mask []byte, h ConfigHandler) (int, error) {
	off, size := d.nextCap, 2+len(body)
	if off+size > configSize || mask != nil && len(mask) != len(body) {
		return 0, qverr.New(qverr.Inval, "%s: capability %#x of %d bytes has no room", d.name, id, size)
	}
	d.config[d.lastCap] = byte(off)
	d.config[regStatus] |= statusCapList
	d.config[off] = id
	copy(d.config[off+2:], body)
	copy(d.mask[off+2:], mask)
	d.lastCap = off + 1
	d.nextCap = (off + size + 3) &^ 3
	d.caps = append(d.caps, capability{off, size, h})
	return off, nil
}

// ConfigBytes copies configuration space from off on. A ConfigHandler may use it.
func (d *Device) ConfigBytes(off int, data []byte) { copy(data, d.config[off:]) }

// ReadBAR reads as the guest would, MSI-X table included. What lies outside of
// the BAR reads as ones.
func (d *Device) ReadBAR(index int, off uint64, data []byte) {
	if h := d.handler(index, off, len(data)); h != nil {
		h.ReadBAR(off, data)
		return
	}
	ones(data)
}

// WriteBAR writes as the guest would; what lies outside of the BAR is dropped.
// Doorbells are not rung: the handler sees the write.
func (d *Device) WriteBAR(index int, off uint64, data []byte) {
	if h := d.handler(index, off, len(data)); h != nil {
		h.WriteBAR(off, data)
	}
}

// inBAR tells whether n bytes at off lie in BAR index.
func (d *Device) inBAR(index int, off uint64, n int) bool {
	if index < 0 || index >= barCount || !d.bars[index].used || d.bars[index].upper {
		return false
	}
	size := d.bars[index].Size
	return off < size && uint64(n) <= size-off
}

func (d *Device) handler(index int, off uint64, n int) BARHandler {
	if !d.inBAR(index, off, n) {
		return nil
	}
	if d.msix != nil {
		if part := d.msix.part(index, off); part != nil {
			return part
		}
	}
	return d.bars[index].Handler
}

// barAddr is where the guest put BAR index; decode tells whether it is on.
func (d *Device) barAddr(index int) (addr uint64, decode bool) {
	reg := regBAR0 + 4*index
	addr = uint64(binary.LittleEndian.Uint32(d.config[reg:]) &^ 0xf)
	if d.bars[index].Is64 {
		addr |= uint64(binary.LittleEndian.Uint32(d.config[reg+4:])) << 32
	}
	return addr, binary.LittleEndian.Uint16(d.config[regCommand:])&cmdMemory != 0
}

func (d *Device) setBAR(index int, addr uint64) {
	reg := regBAR0 + 4*index
	flags := d.config[reg] & 0xf
	binary.LittleEndian.PutUint32(d.config[reg:], uint32(addr)|uint32(flags))
	if d.bars[index].Is64 {
		binary.LittleEndian.PutUint32(d.config[reg+4:], uint32(addr>>32))
	}
}

func (d *Device) String() string { return fmt.Sprintf("%s at 00:%02x.0", d.name, d.slot) }

func ones(data []byte) {
	for i := range data {
		data[i] = 0xff
	}
}
