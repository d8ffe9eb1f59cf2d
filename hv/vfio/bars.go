package vfio

import (
	"encoding/binary"
	"math/bits"
	"sort"

	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// addBARs makes the guest's BARs like those of the hardware. What is smaller than a
// page gets one: the rest of it reads as ones.
func (f *Function) addBARs(cfg []byte) error {
	for i := 0; i < bars; i++ {
		flags := binary.LittleEndian.Uint32(cfg[cfgBAR0+4*i:])
		r := f.hw.Region(i)
		wide := flags&barIO == 0 && flags&bar64 != 0
		if r.Size != 0 && flags&barIO == 0 {
			if bits.OnesCount64(r.Size) != 1 {
				return qverr.New(qverr.Unsupported, "BAR %d of %s has %#x bytes", i, f.hw.Address(), r.Size)
			}
			err := f.pci.AddBAR(i, pci.BAR{Size: max(r.Size, page), Is64: wide, Prefetch: flags&barPrefetch != 0,
				Handler: &trapped{f, i, r.Size}})
			if err != nil {
				return err
			}
		}
		if wide {
			i++
		}
	}
	return nil
}

// trapped serves what the guest does not reach by itself.
type trapped struct {
	f    *Function
	bar  int
	size uint64
}

func (t *trapped) inside(off uint64, n int) bool { return off < t.size && uint64(n) <= t.size-off }

// ReadBAR reads the hardware; ones where there is none.
func (t *trapped) ReadBAR(off uint64, data []byte) {
	if !t.inside(off, len(data)) || t.f.hw.ReadRegion(t.bar, off, data) != nil {
		for i := range data {
			data[i] = 0xff
		}
	}
}

// WriteBAR writes the hardware.
func (t *trapped) WriteBAR(off uint64, data []byte) {
	if t.inside(off, len(data)) {
		// The kernel refuses it while the function is being reset: it is lost, as on
		// hardware.
		_ = t.f.hw.WriteRegion(t.bar, off, data)
	}
}

// span is a range of a BAR, [from, to).
type span struct{ from, to uint64 }

// addMemory maps BARs for the guest, all but the pages of the MSI-X structures.
func (f *Function) addMemory(cfg []byte) error {
	holes := f.msixPages(cfg)
	for i := range bars {
		r := f.hw.Region(i)
		if !r.Mapped || binary.LittleEndian.Uint32(cfg[cfgBAR0+4*i:])&barIO != 0 {
			continue
		}
		for _, s := range without(r.Size&^(page-1), holes[i]) {
			mem, err := f.hw.MapRegion(i, s.from, int(s.to-s.from))
			if err != nil {
				return err
			}
			if err := f.pci.AddMemory(i, s.from, mem); err != nil {
				return err
			}
		}
	}
	return nil
}

// without is [0, size) but for holes.
func without(size uint64, holes []span) (left []span) {
	sort.Slice(holes, func(a, b int) bool { return holes[a].from < holes[b].from })
	at := uint64(0)
	for _, h := range holes {
		if h.from > at {
			left = append(left, span{at, min(h.from, size)})
		}
		at = max(at, h.to)
	}
	if at < size {
		left = append(left, span{at, size})
	}
	return left
}

// msixPages are the whole pages of table and pending bits, by BAR.
func (f *Function) msixPages(cfg []byte) map[int][]span {
	holes := map[int][]span{}
	m, ok := findMSIX(cfg)
	if !ok || f.pci.MSIX() == nil {
		return holes
	}
	add := func(bar int, off, n uint64) {
		holes[bar] = append(holes[bar], span{off &^ (page - 1), (off + n + page - 1) &^ (page - 1)})
	}
	add(m.tableBAR, m.table, uint64(m.count)*16)
	add(m.pbaBAR, m.pba, uint64(m.count+63)/64*8)
	return holes
}
