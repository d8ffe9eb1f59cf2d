package machine

import (
	"quantavirt/hv/memory"
	"quantavirt/hv/pci"
)

// Guest physical addresses. RAM is one flat range from 0, without holes for
// legacy video or ROMs; what the firmware tables take of it is reserved.
const (
	gdtAddr       = 0x0500
	startInfoAddr = 0x6000 // PVH: start info, its module list and memory map
	zeroPageAddr  = 0x7000 // bzImage: struct boot_params
	pageTableAddr = 0x9000 // six pages: one PML4, one PDPT, four PDs
	cmdlineAddr   = 0x20000

	ebdaStart   = 0x9fc00
	ebdaEnd     = 0xa0000
	tablesStart = 0xe0000 // RSDP first, as firmware would leave it
	tablesEnd   = 0x100000
	highStart   = 0x100000

	ecamBase = memory.GapStart
	ecamSize = 1 << 20 // one bus; room up to mmioStart for 255 more

	mmioStart  = 0xd000_0000
	mmioEnd    = 0xfec0_0000 // the IOAPIC
	ioapicAddr = 0xfec0_0000
	lapicAddr  = 0xfee0_0000
	tssAddr    = 0xfeff_d000

	gib = 1 << 30
	// highSize bounds the window of 64-bit BARs.
	highSize = 512 * gib
)

// windows are where BARs may lie when the guest has physical addresses of bits
// bits: below the IOAPIC, and from the first GiB above RAM.
func windows(m *memory.Memory, bits uint) pci.Windows {
	regions := m.Regions()
	top := max(regions[len(regions)-1].End(), memory.GapEnd)
	w := pci.Windows{Low: pci.Window{Base: mmioStart, End: mmioEnd}}
	base := (top + gib - 1) &^ (gib - 1)
	if end := min(base+highSize, uint64(1)<<bits); base < end {
		w.High = pci.Window{Base: base, End: end}
	}
	return w
}

// Types of a range in the map that the guest gets (e820 and PVH agree).
const (
	typeRAM      = 1
	typeReserved = 2
)

type mapEntry struct {
	addr, size uint64
	kind       uint32
}

func memoryMap(m *memory.Memory) []mapEntry {
	list := []mapEntry{
		{0, ebdaStart, typeRAM},
		{ebdaStart, ebdaEnd - ebdaStart, typeReserved},
		{tablesStart, tablesEnd - tablesStart, typeReserved},
		{highStart, m.LowEnd() - highStart, typeRAM},
		{ecamBase, ecamSize, typeReserved},
	}
	for _, r := range m.Regions()[1:] {
		list = append(list, mapEntry{r.GPA, r.Size, typeRAM})
	}
	return list
}
