package vfio

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// pageSize is the granule of DMA mappings.
const pageSize = 4096

// Buffer is page-aligned memory off the Go heap that the device can reach.
type Buffer struct {
	Bytes []byte
	IOVA  uint64
}

// AllocDMA returns zeroed memory of at least size bytes, mapped for the device
// to read and write. NoMem when memory or I/O addresses are exhausted.
func (d *Device) AllocDMA(size int) (*Buffer, error) {
	if size <= 0 {
		return nil, qverr.New(qverr.Inval, "DMA buffer of %d bytes", size)
	}
	size = (size + pageSize - 1) &^ (pageSize - 1)
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		return nil, qverr.New(qverr.NoMem, "DMA buffer of %d bytes: %w", size, err)
	}
	d.mu.Lock()
	iova, ok := d.space.alloc(uint64(size))
	d.mu.Unlock()
	if !ok {
		_ = unix.Munmap(mem)
		return nil, qverr.New(qverr.NoMem, "no I/O addresses left for %d bytes", size)
	}
	m := mapDMA{flags: dmaRead | dmaWrite, vaddr: uint64(uintptr(unsafe.Pointer(&mem[0]))), iova: iova, length: uint64(size)}
	m.argsz = uint32(unsafe.Sizeof(m))
	if _, err := ioctlPtr(d.container, reqMapDMA, unsafe.Pointer(&m)); err != nil {
		d.freeIOVA(iova, uint64(size))
		_ = unix.Munmap(mem)
		return nil, qverr.New(qverr.NoMem, "map %d bytes for DMA (is RLIMIT_MEMLOCK high enough?): %w", size, err)
	}
	return &Buffer{Bytes: mem, IOVA: iova}, nil
}

// FreeDMA wipes the buffer and takes it away from the device.
func (d *Device) FreeDMA(b *Buffer) error {
	clear(b.Bytes)
	u := unmapDMA{iova: b.IOVA, length: uint64(len(b.Bytes))}
	u.argsz = uint32(unsafe.Sizeof(u))
	if _, err := ioctlPtr(d.container, reqUnmapDMA, unsafe.Pointer(&u)); err != nil {
		return qverr.New(qverr.IO, "unmap DMA buffer at %#x: %w", b.IOVA, err)
	}
	d.freeIOVA(b.IOVA, uint64(len(b.Bytes)))
	err := unix.Munmap(b.Bytes)
	b.Bytes = nil
	return err
}

func (d *Device) freeIOVA(iova, size uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space.free(iova, size)
}

// I/O addresses are given out from 1 GiB up to the window that x86 IOMMUs keep
// for interrupt messages (0xFEE00000): below lies what firmware may reserve.
const (
	iovaBase  = 1 << 30
	iovaLimit = 0xFEE00000
)

// iovaSpace is a first-fit allocator of I/O addresses.
type iovaSpace struct{ gaps []gap }

type gap struct{ start, end uint64 }

func newIOVASpace() iovaSpace { return iovaSpace{gaps: []gap{{iovaBase, iovaLimit}}} }

func (s *iovaSpace) alloc(size uint64) (uint64, bool) {
	for i := range s.gaps {
		g := &s.gaps[i]
		if g.end-g.start < size {
			continue
		}
		iova := g.start
		if g.start += size; g.start == g.end {
			s.gaps = append(s.gaps[:i], s.gaps[i+1:]...)
		}
		return iova, true
	}
	return 0, false
}

func (s *iovaSpace) free(iova, size uint64) {
	end := iova + size
	i := 0
	for i < len(s.gaps) && s.gaps[i].start < iova {
		i++
	}
	s.gaps = append(s.gaps, gap{})
	copy(s.gaps[i+1:], s.gaps[i:])
	s.gaps[i] = gap{iova, end}
	if i+1 < len(s.gaps) && s.gaps[i].end == s.gaps[i+1].start {
		s.gaps[i].end = s.gaps[i+1].end
		s.gaps = append(s.gaps[:i+1], s.gaps[i+2:]...)
	}
	if i > 0 && s.gaps[i-1].end == s.gaps[i].start {
		s.gaps[i-1].end = s.gaps[i].end
		s.gaps = append(s.gaps[:i], s.gaps[i+1:]...)
	}
}
