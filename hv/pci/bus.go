package pci

import (
	"encoding/binary"
	"sort"
	"sync"
	"sync/atomic"

	"quantavirt/internal/qverr"
)

// Slots is the number of device numbers on the bus; slot 0 is the host bridge.
const Slots = 32

// Window is a range of guest addresses, [Base, End).
type Window struct{ Base, End uint64 }

// Windows say where BARs may lie.
type Windows struct {
	Low  Window // below 4 GiB
	High Window // above all RAM; empty when there is none
}

// Bus is root bus 0 with its host bridge in slot 0.
type Bus struct {
	host    Host
	windows Windows

	mu      sync.Mutex // serializes configuration accesses
	slots   [Slots]*Device
	address uint32 // the CF8 register
	fault   func(error)

	// decode is what the guest's memory accesses are looked up in: sorted,
	// replaced as a whole when a BAR moves.
	decode atomic.Pointer[[]mapping]
}

type mapping struct {
	base, size uint64
	dev        *Device
	bar        int
}

// NewBus makes a bus whose BARs lie in w. fault is told when a doorbell or memory cannot
// follow its BAR, as when the guest puts two BARs onto one another: nobody else
// can be. The BAR's handler sees the writes then.
func NewBus(h Host, w Windows, fault func(error)) *Bus {
	b := &Bus{host: h, windows: w, fault: fault}
	b.decode.Store(&[]mapping{})
	// The generic bridge of QEMU's pcie-host-bridge: firmware knows no chipset
	// behind it, and drives none.
	bridge := NewDevice("host bridge", Identity{Vendor: 0x1b36, Device: 0x0008, Class: 0x060000})
	b.slots[0] = bridge
	bridge.bus = b
	bridge.initial = bridge.config
	return b
}

// Add puts d into slot, or into the first free one when slot is negative.
func (b *Bus) Add(slot int, d *Device) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slot < 0 {
		for slot = 1; slot < Slots && b.slots[slot] != nil; slot++ {
		}
		if slot == Slots {
			return qverr.New(qverr.Limit, "%s: the PCI bus is full", d.name)
		}
	}
	if slot < 1 || slot >= Slots {
		return qverr.New(qverr.Inval, "%s: no PCI slot %d", d.name, slot)
	}
	if b.slots[slot] != nil {
		return qverr.New(qverr.Exist, "%s: PCI slot %d has %s", d.name, slot, b.slots[slot].name)
	}
	if d.msix != nil {
		if err := d.msix.bind(b.host); err != nil {
			return err
		}
	}
	if d.msi != nil {
		if err := d.msi.bind(b.host); err != nil {
			return err
		}
	}
	d.bus, d.slot = b, slot
	b.slots[slot] = d
	return nil
}

// Devices lists the devices by slot, the host bridge first.
func (b *Bus) Devices() []*Device {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*Device
	for _, d := range b.slots {
		if d != nil {
			list = append(list, d)
		}
	}
	return list
}

// Place assigns an address to every BAR and switches memory decoding on, as
// firmware does: largest first, 64-bit BARs above RAM when there is room.
func (b *Bus) Place() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	type item struct {
		d *Device
		i int
	}
	var items []item
	for _, d := range b.slots {
		for i := range barCount {
			if d != nil && d.bars[i].used && !d.bars[i].upper {
				items = append(items, item{d, i})
			}
		}
	}
	sort.SliceStable(items, func(x, y int) bool {
		return items[x].d.bars[items[x].i].Size > items[y].d.bars[items[y].i].Size
	})
	low, high := b.windows.Low, b.windows.High
	for _, it := range items {
		size := it.d.bars[it.i].Size
		addr, ok := uint64(0), false
		if it.d.bars[it.i].Is64 {
			addr, ok = high.take(size)
		}
		if !ok {
			addr, ok = low.take(size)
		}
		if !ok {
			return qverr.New(qverr.NoSpc, "%s: no address for BAR %d of %#x bytes", it.d, it.i, size)
		}
		it.d.setBAR(it.i, addr)
	}
	for _, d := range b.slots {
		if d != nil {
			d.config[regCommand] |= cmdMemory | cmdMaster
			d.initial = d.config
			d.tellCommand()
		}
	}
	return b.remap()
}

// Settle takes the devices as they are for what Reset brings back: firmware in the
// guest places the BARs.
func (b *Bus) Settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.slots {
		if d != nil {
			d.initial = d.config
		}
	}
}

func (w *Window) take(size uint64) (uint64, bool) {
	addr := (w.Base + size - 1) &^ (size - 1)
	if addr < w.Base || addr > w.End || size > w.End-addr {
		return 0, false
	}
	w.Base = addr + size
	return addr, true
}

// Reset brings all devices back to what Place left; no vCPU may run.
func (b *Bus) Reset() error {
	b.mu.Lock()
	b.address = 0
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		d.config = d.initial
		if d.msix != nil {
			d.msix.reset()
		}
		if d.msi != nil {
			d.msi.reset()
		}
		d.tellCommand()
	}
	err := b.remap()
	b.mu.Unlock()
	for _, d := range b.Devices() {
		for _, f := range d.onReset {
			f()
		}
	}
	return err
}

// Close releases what the bus opened for its devices.
func (b *Bus) Close() {
	for _, d := range b.Devices() {
		if d.msix != nil {
			d.msix.close()
		}
		if d.msi != nil {
			d.msi.close()
		}
	}
}

// remap makes the decode table, the doorbells and the memory follow the BARs. A BAR outside
// of the windows is not decoded: it could hide RAM or an interrupt controller.
func (b *Bus) remap() error {
	table := []mapping{}
	for _, d := range b.slots {
		for i := range barCount {
			if d == nil || !d.bars[i].used || d.bars[i].upper {
				continue
			}
			addr, on := d.barAddr(i)
			size := d.bars[i].Size
			if on && (b.windows.Low.holds(addr, size) || b.windows.High.holds(addr, size)) {
				table = append(table, mapping{addr, size, d, i})
			}
		}
	}
	sort.SliceStable(table, func(x, y int) bool { return table[x].base < table[y].base })
	b.decode.Store(&table)
	var first error
	for _, d := range b.slots {
		if d != nil {
			if err := d.placeDoorbells(); err != nil && first == nil {
				first = err
			}
			if err := d.placeMemories(); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

func (w Window) holds(addr, size uint64) bool {
	return addr >= w.Base && addr < w.End && size <= w.End-addr
}

// visible tells where BAR index of d is decoded.
func (b *Bus) visible(d *Device, index int) (uint64, bool) {
	for _, m := range *b.decode.Load() {
		if m.dev == d && m.bar == index {
			return m.base, true
		}
	}
	return 0, false
}

// ReadMMIO serves a read of the guest; it is false when no BAR is there.
func (b *Bus) ReadMMIO(addr uint64, data []byte) bool {
	m := b.find(addr)
	if m == nil {
		return false
	}
	m.dev.ReadBAR(m.bar, addr-m.base, data)
	return true
}

// WriteMMIO serves a write of the guest; it is false when no BAR is there.
func (b *Bus) WriteMMIO(addr uint64, data []byte) bool {
	m := b.find(addr)
	if m == nil {
		return false
	}
	m.dev.WriteBAR(m.bar, addr-m.base, data)
	return true
}

func (b *Bus) find(addr uint64) *mapping {
	table := *b.decode.Load()
	i := sort.Search(len(table), func(i int) bool { return table[i].base > addr }) - 1
	if i < 0 || addr-table[i].base >= table[i].size {
		return nil
	}
	return &table[i]
}

// ReadECAM serves a read at off in the ECAM window of bus 0.
func (b *Bus) ReadECAM(off uint64, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readConfig(uint32(off>>12), int(off&0xfff), data)
}

// WriteECAM serves a write at off in the ECAM window of bus 0.
func (b *Bus) WriteECAM(off uint64, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writeConfig(uint32(off>>12), int(off&0xfff), data)
}

// ReadPort serves ports CF8 to CFF.
func (b *Bus) ReadPort(port uint16, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ones(data)
	switch {
	case port == 0xcf8 && len(data) == 4:
		binary.LittleEndian.PutUint32(data, b.address)
	case port >= 0xcfc && b.address&(1<<31) != 0:
		b.readConfig(b.address>>8&0xffff, int(b.address&0xfc)+int(port-0xcfc), data)
	}
}

// WritePort serves ports CF8 to CFF. CF8 takes 32-bit writes only.
func (b *Bus) WritePort(port uint16, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case port == 0xcf8 && len(data) == 4:
		b.address = binary.LittleEndian.Uint32(data) & 0x80ff_fffc
	case port >= 0xcfc && b.address&(1<<31) != 0:
		b.writeConfig(b.address>>8&0xffff, int(b.address&0xfc)+int(port-0xcfc), data)
	}
}

// function finds a device by bus<<8 | device<<3 | function.
func (b *Bus) function(bdf uint32) *Device {
	if bdf&7 != 0 || bdf>>3 >= Slots {
		return nil
	}
	return b.slots[bdf>>3]
}

func (b *Bus) readConfig(bdf uint32, off int, data []byte) {
	ones(data)
	d := b.function(bdf)
	if d == nil || off+len(data) > configSize {
		return
	}
	d.readConfig(off, data)
}

func (b *Bus) writeConfig(bdf uint32, off int, data []byte) {
	d := b.function(bdf)
	if d == nil || off+len(data) > configSize {
		return
	}
	if d.writeConfig(off, data) {
		if err := b.remap(); err != nil {
			b.fault(err)
		}
		d.tellCommand()
	}
}
