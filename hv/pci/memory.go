package pci

import "quantavirt/internal/qverr"

// directMemory is memory of this process that shows in a BAR.
type directMemory struct {
	bar int
	off uint64
	mem []byte
	at  uint64 // where it is mapped; noAddr when it is not
}

const memoryPage = 4096

// AddMemory shows mem, whole pages of this process, to the guest at off in BAR
// index: its accesses there go to mem without an exit, and the BAR's handler sees
// those to the rest. It follows the BAR when the guest moves it. Where MSI-X has
// its table no memory may be.
func (d *Device) AddMemory(index int, off uint64, mem []byte) error {
	n := len(mem)
	if n == 0 || n%memoryPage != 0 || off%memoryPage != 0 || !d.inBAR(index, off, n) || d.msix != nil && d.msix.overlaps(index, off, uint64(n)) {
		return qverr.New(qverr.Inval, "%s: %#x bytes of memory at %#x of BAR %d", d.name, n, off, index)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memories = append(d.memories, &directMemory{bar: index, off: off, mem: mem, at: noAddr})
	return nil
}

// overlaps tells whether a range of a BAR has a byte of the table or the pending bits.
func (m *MSIX) overlaps(bar int, off, n uint64) bool {
	vectors := uint64(len(m.vectors))
	table, pba := vectors*msixEntry, (vectors+63)/64*8
	return bar == m.bar && off < m.table+table && m.table < off+n || bar == m.pbaBAR && off < m.pba+pba && m.pba < off+n
}

// placeMemories moves all memory to where its BAR is now: first away, so that two
// may change places.
func (d *Device) placeMemories() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var first error
	for _, m := range d.memories {
		if m.at != noAddr && m.at != d.wantedAt(m) {
			if err := d.bus.host.UnmapMemory(m.at, m.mem); err != nil {
				first = err
				continue
			}
			m.at = noAddr
		}
	}
	for _, m := range d.memories {
		if at := d.wantedAt(m); m.at == noAddr && at != noAddr {
			if err := d.bus.host.MapMemory(at, m.mem); err != nil {
				if first == nil {
					first = err
				}
				continue
			}
			m.at = at
		}
	}
	return first
}

func (d *Device) wantedAt(m *directMemory) uint64 {
	if base, ok := d.bus.visible(d, m.bar); ok {
		return base + m.off
	}
	return noAddr
}
