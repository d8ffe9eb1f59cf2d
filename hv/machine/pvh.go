package machine

import (
	"encoding/binary"
	"os"

	"quantavirt/internal/qverr"
)

// struct hvm_start_info and its parts (xen/include/public/arch-x86/hvm/start_info.h).
const (
	pvhMagic      = 0x336ec578
	pvhVersion    = 1 // the first with a memory map
	pvhInfoSize   = 56
	pvhModSize    = 32
	pvhMapSize    = 24
	pvhModAddr    = startInfoAddr + 0x100
	pvhMapAddr    = startInfoAddr + 0x200
	pvhCmdlineMax = 2047 // COMMAND_LINE_SIZE of Linux, less the zero
)

// copySegments loads the segments of an ELF kernel from src, by bytes higher
// than the file says.
func (m *Machine) copySegments(f *elfFile, src *os.File, by uint64) error {
	if f.end+by > m.mem.LowEnd() {
		return qverr.New(qverr.VMStart, "the kernel needs memory up to %#x; the VM has %#x", f.end+by, m.mem.LowEnd())
	}
	for _, s := range f.loads {
		dst, err := m.mem.Slice(s.paddr+by, s.memory)
		if err != nil {
			return err
		}
		// RAM is zero at a start, so the rest of the segment need not be.
		if err := readSparse(src, dst[:s.fileSize], s.off); err != nil {
			return err
		}
		m.image = append(m.image, span{s.paddr + by, s.fileSize})
	}
	return nil
}

// enterPVH prepares the entry of a kernel that is loaded.
func (m *Machine) enterPVH(f *elfFile) (entryPoint, error) {
	if err := m.checkCmdline(pvhCmdlineMax); err != nil {
		return entryPoint{}, err
	}
	initrd, err := m.loadInitrd(f.end, 1<<32-1)
	if err != nil {
		return entryPoint{}, err
	}
	if err := m.writeStartInfo(initrd); err != nil {
		return entryPoint{}, err
	}
	if err := m.writeTables(false); err != nil {
		return entryPoint{}, err
	}
	return entryPoint{rip: f.entry, arg: startInfoAddr}, nil
}

func (m *Machine) writeStartInfo(initrd span) error {
	p, err := m.mem.Slice(startInfoAddr, 0x1000)
	if err != nil {
		return err
	}
	clear(p)
	le := binary.LittleEndian
	list := memoryMap(m.mem)
	le.PutUint32(p, pvhMagic)
	le.PutUint32(p[4:], pvhVersion)
	if initrd.size > 0 {
		le.PutUint32(p[12:], 1)
		le.PutUint64(p[16:], pvhModAddr)
		le.PutUint64(p[pvhModAddr-startInfoAddr:], initrd.addr)
		le.PutUint64(p[pvhModAddr-startInfoAddr+8:], initrd.size)
	}
	le.PutUint64(p[24:], cmdlineAddr)
	le.PutUint64(p[32:], tablesStart) // RSDP
	le.PutUint64(p[40:], pvhMapAddr)
	le.PutUint32(p[48:], uint32(len(list)))
	for i, e := range list {
		at := p[pvhMapAddr-startInfoAddr+pvhMapSize*i:]
		le.PutUint64(at, e.addr)
		le.PutUint64(at[8:], e.size)
		le.PutUint32(at[16:], e.kind)
	}
	return nil
}
