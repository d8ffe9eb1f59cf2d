package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"quantavirt/hv/memory"
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

// copySegments loads the segments of an ELF kernel from src.
func (m *Machine) copySegments(f *elfFile, src io.ReaderAt) error {
	if f.end > m.mem.LowEnd() {
		return qverr.New(qverr.VMStart, "the kernel needs memory up to %#x; the VM has %#x", f.end, m.mem.LowEnd())
	}
	for _, s := range f.loads {
		dst, err := m.mem.Slice(s.paddr, s.memory)
		if err != nil {
			return err
		}
		// RAM is zero at a start, so the rest of the segment need not be.
		if err := readFile(src, dst[:s.fileSize], s.off); err != nil {
			return err
		}
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

func (m *Machine) writeStartInfo(initrd initrdRange) error {
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

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// unpackBz decompresses the payload of a bzImage and enters it by PVH, which
// spares the guest the work. Both the packed and the unpacked kernel go to the
// top of the guest's own memory, which is given back afterwards, so it costs the
// host nothing. ok is false when that is not possible and the guest shall unpack.
func (m *Machine) unpackBz(h *bzHeader) (e entryPoint, ok bool, err error) {
	const (
		trailer = 4       // the unpacked size follows the compressed stream
		slack   = 1 << 20 // between the two, for a decoder that looks ahead
	)
	if h.payloadLen <= 2*trailer {
		return e, false, nil
	}
	packedSize := uint64(h.payloadLen) - trailer
	var head, tail [trailer]byte
	if err := readExact(m.opts.Kernel, head[:], h.payloadOff); err != nil {
		return e, false, err
	}
	if err := readExact(m.opts.Kernel, tail[:], h.payloadOff+int64(packedSize)); err != nil {
		return e, false, err
	}
	size := uint64(binary.LittleEndian.Uint32(tail[:]))
	need := size + slack + packedSize
	if !bytes.Equal(head[:], zstdMagic) || size < packedSize || need > m.mem.LowEnd()-highStart {
		return e, false, nil
	}
	base := (m.mem.LowEnd() - need) &^ (memory.PageSize - 1)
	area, err := m.mem.Slice(base, m.mem.LowEnd()-base)
	if err != nil {
		return e, false, err
	}
	unpacked, packed := area[:0:size+slack], area[size+slack:][:packedSize]
	if err := readFile(m.opts.Kernel, packed, h.payloadOff); err != nil {
		return e, false, err
	}
	unpacked, f := unzstd(packed, unpacked)
	ok = f != nil && f.entry != 0 && f.end <= base
	if ok {
		err = m.copySegments(f, bytes.NewReader(unpacked))
	}
	if err = errors.Join(err, m.mem.DiscardRange(base, uint64(len(area)))); !ok || err != nil {
		return e, false, err
	}
	e, err = m.enterPVH(f)
	return e, true, err
}

// unzstd decompresses src into dst, never beyond it. f is nil when that does not
// give an ELF kernel.
func unzstd(src, dst []byte) (out []byte, f *elfFile) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderMaxWindow(1<<30))
	if err != nil {
		return nil, nil
	}
	defer d.Close()
	if out, err = d.DecodeAll(src, dst); err != nil {
		return nil, nil
	}
	if f, err = parseELF(bytes.NewReader(out)); err != nil {
		return nil, nil
	}
	return out, f
}
