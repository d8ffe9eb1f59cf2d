package machine

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
)

// Where Linux's own unpacker may move a kernel (arch/x86/boot/compressed/kaslr.c).
const (
	kernelMap     = 0xffff_ffff_8000_0000 // __START_KERNEL_map
	kernelMapSize = 1 << 30               // KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE
)

// unpacked is a kernel that Unpack wrote, checked.
type unpacked struct {
	elf    *elfFile
	relocs [3]relocTable // in the order of relocKinds
}

// relocTable is where the addresses of one kind of relocation lie in the file,
// four bytes each.
type relocTable struct {
	off   int64
	count int
}

// The kinds of relocation. Kernels up to 6.14 have all, later ones no inverse ones.
const (
	reloc64 = iota
	relocInverse
	reloc32
)

// CheckUnpacked tells whether f, of size bytes, is a kernel that Unpack wrote
// whole. Its errors carry QV_ERR_INVAL, or QV_ERR_IO when f cannot be read.
func CheckUnpacked(f io.ReaderAt, size int64) error {
	_, err := parseUnpacked(f, size)
	return err
}

func parseUnpacked(f io.ReaderAt, size int64) (*unpacked, error) {
	elf, err := parseELF(f)
	if err != nil {
		return nil, err
	}
	if !elf.holds(elf.start) {
		return nil, notKernel("its entry %#x is not in what it loads", elf.start)
	}
	u := &unpacked{elf: elf}
	if elf.fileEnd > size {
		return nil, notKernel("the unpacked kernel has %d bytes and should have %d", size, elf.fileEnd)
	}
	if elf.fileEnd == size {
		return u, nil // built without relocations: it cannot be moved
	}
	return u, u.findRelocs(f, size)
}

// findRelocs finds the tables behind the ELF file (arch/x86/tools/relocs.c): each
// begins with a zero and has no other; the last is that of 32 bits.
func (u *unpacked) findRelocs(f io.ReaderAt, size int64) error {
	if (size-u.elf.fileEnd)%4 != 0 {
		return notKernel("%d bytes of relocations", size-u.elf.fileEnd)
	}
	var tables []relocTable
	err := eachReloc(f, relocTable{u.elf.fileEnd, int((size - u.elf.fileEnd) / 4)}, func(i int, addr uint32) error {
		if addr == 0 {
			if len(tables) == len(u.relocs) {
				return notKernel("more than %d tables of relocations", len(u.relocs))
			}
			tables = append(tables, relocTable{off: u.elf.fileEnd + 4*int64(i+1)})
		} else if len(tables) == 0 {
			return notKernel("its relocations do not begin with a zero")
		} else {
			tables[len(tables)-1].count++
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch len(tables) {
	case 2:
		u.relocs[reloc64], u.relocs[reloc32] = tables[0], tables[1]
	case 3:
		u.relocs = [3]relocTable(tables)
	default:
		return notKernel("%d tables of relocations", len(tables))
	}
	return nil
}

// eachReloc reads a table in pieces.
func eachReloc(f io.ReaderAt, t relocTable, do func(i int, addr uint32) error) error {
	buf := make([]byte, 64<<10)
	for i := 0; i < t.count; {
		n := min(len(buf), 4*(t.count-i))
		if err := readExact(f, buf[:n], t.off+4*int64(i)); err != nil {
			return err
		}
		for at := 0; at < n; at += 4 {
			if err := do(i, binary.LittleEndian.Uint32(buf[at:])); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

func (u *unpacked) movable() bool { return u.relocs[reloc32].count > 0 }

// loadUnpacked does what the kernel's own unpacker would do in the guest: it
// places the kernel, at random unless nokaslr is given, and moves it there.
func (m *Machine) loadUnpacked(h *bzHeader) (entryPoint, error) {
	if err := m.checkRoom(h); err != nil {
		return entryPoint{}, err
	}
	size, err := fileSize(m.opts.Unpacked)
	if err != nil {
		return entryPoint{}, err
	}
	u, err := parseUnpacked(m.opts.Unpacked, int64(size))
	if err != nil {
		return entryPoint{}, err
	}
	if u.elf.end > h.prefAddr+h.initSize {
		return entryPoint{}, notKernel("unpacked it needs memory up to %#x, its header says %#x", u.elf.end, h.prefAddr+h.initSize)
	}
	initrd, err := m.loadInitrd(h.prefAddr+h.initSize, h.initrdMax)
	if err != nil {
		return entryPoint{}, err
	}
	var flags byte
	var physical, virtual uint64 // how far the kernel is moved
	if u.movable() && !slices.Contains(strings.Fields(m.opts.Cmdline), "nokaslr") {
		top := m.mem.LowEnd()
		if initrd.size > 0 {
			top = initrd.addr
		}
		flags = bzMoved
		physical = randomStep(top-h.initSize-h.prefAddr, h.align)
		virtual = randomStep(kernelMapSize-min(kernelMapSize, h.initSize+h.prefAddr), h.align)
	}
	if err := m.copySegments(u.elf, m.opts.Unpacked, physical); err != nil {
		return entryPoint{}, err
	}
	if virtual != 0 {
		if err := m.relocate(u, m.opts.Unpacked, physical, virtual); err != nil {
			return entryPoint{}, err
		}
	}
	return m.enterLong(h, initrd, flags, u.elf.start+physical)
}

// randomStep is a random multiple of step, at most limit.
func randomStep(limit, step uint64) uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) % (limit/step + 1) * step
}

// relocate adds how far the kernel is moved in its address space to all addresses
// in it; physical is how far it was moved in RAM.
func (m *Machine) relocate(u *unpacked, f *os.File, physical, virtual uint64) error {
	low := u.elf.end
	for _, s := range u.elf.loads {
		low = min(low, s.paddr)
	}
	ram, err := m.mem.Slice(low+physical, u.elf.end-low)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	for kind, table := range u.relocs {
		err := eachReloc(f, table, func(_ int, addr uint32) error {
			// Addresses are stored as 32 bits with a sign.
			at := uint64(int64(int32(addr))) - kernelMap - low
			if at > uint64(len(ram)) || uint64(len(ram))-at < 8 {
				return qverr.New(qverr.Inval, "a relocation at %#x, outside of the kernel", addr)
			}
			p := ram[at:]
			switch kind {
			case reloc64:
				le.PutUint64(p, le.Uint64(p)+virtual)
			case relocInverse:
				le.PutUint32(p, le.Uint32(p)-uint32(virtual))
			case reloc32:
				le.PutUint32(p, le.Uint32(p)+uint32(virtual))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
