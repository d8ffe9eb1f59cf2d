package model

import (
	"encoding/binary"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"unsafe"
)

// PageSize is the granularity of an IOMMU, and so of Memory.
const PageSize = 4096

// Memory is a Host inside the process: byte slices at IOVAs, as an IOMMU would map them. Nothing keeps a guest from giving
// two commands one buffer, so the accesses take turns, as at a memory controller: such a buffer has the bytes of one of them.
type Memory struct {
	interrupt func(vector int)

	mu   sync.RWMutex // held for writing also while memory is written to
	maps []mapping    // ordered by address
}

type mapping struct {
	iova  uint64
	mem   []byte
	read  bool
	write bool
}

// NewMemory makes an empty Memory. interrupt is called for each message and must not block; it may be nil.
func NewMemory(interrupt func(vector int)) *Memory {
	if interrupt == nil {
		interrupt = func(int) {}
	}
	return &Memory{interrupt: interrupt}
}

// Map lets the card reach mem at iova. Both iova and the length must be multiples of PageSize.
func (m *Memory) Map(iova uint64, mem []byte, read, write bool) error {
	n := uint64(len(mem))
	if n == 0 || n%PageSize != 0 || iova%PageSize != 0 || iova+n-1 < iova {
		return fmt.Errorf("map %d bytes at %#x: not whole pages", n, iova)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.after(iova)
	if i > 0 && m.maps[i-1].iova+uint64(len(m.maps[i-1].mem))-1 >= iova || i < len(m.maps) && m.maps[i].iova-iova < n {
		return fmt.Errorf("map %d bytes at %#x: overlaps", n, iova)
	}
	m.maps = append(m.maps, mapping{})
	copy(m.maps[i+1:], m.maps[i:])
	m.maps[i] = mapping{iova, mem, read, write}
	return nil
}

// Unmap removes every mapping that lies inside the range. It returns after the last access to them.
func (m *Memory) Unmap(iova, size uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.maps[:0]
	for _, x := range m.maps {
		if off := x.iova - iova; x.iova < iova || off > size || uint64(len(x.mem)) > size-off {
			kept = append(kept, x)
		}
	}
	clear(m.maps[len(kept):])
	m.maps = kept
}

// Len is the number of mappings.
func (m *Memory) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.maps)
}

// after returns the index of the first mapping that begins behind iova.
func (m *Memory) after(iova uint64) int {
	return sort.Search(len(m.maps), func(i int) bool { return m.maps[i].iova > iova })
}

// visit calls f with the pieces of memory that make up the range.
func (m *Memory) visit(iova uint64, n int, write bool, f func(mem []byte)) error {
	for n > 0 {
		i := m.after(iova)
		if i == 0 || iova-m.maps[i-1].iova >= uint64(len(m.maps[i-1].mem)) {
			return fmt.Errorf("%#x: %w", iova, ErrUnmapped)
		}
		x := &m.maps[i-1]
		if write && !x.write || !write && !x.read {
			return fmt.Errorf("%#x: %w", iova, ErrPermission)
		}
		mem := x.mem[iova-x.iova:]
		mem = mem[:min(n, len(mem))]
		f(mem)
		n -= len(mem)
		iova += uint64(len(mem))
		if iova == 0 && n > 0 {
			return fmt.Errorf("end of the address space: %w", ErrUnmapped)
		}
	}
	return nil
}

// ReadDMA implements Host.
func (m *Memory) ReadDMA(iova uint64, p []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.visit(iova, len(p), false, func(mem []byte) { p = p[copy(p, mem):] })
}

// WriteDMA implements Host.
func (m *Memory) WriteDMA(iova uint64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.visit(iova, len(p), true, func(mem []byte) {
		p = p[StoreDMA(mem, p):]
	})
}

// Interrupt implements Host.
func (m *Memory) Interrupt(vector int) { m.interrupt(vector) }

// StoreDMA copies the start of p to mem, which lies in memory that somebody else reads at the same time. Four aligned
// bytes become one atomic store, as Host demands of WriteDMA. It returns the number of bytes copied.
func StoreDMA(mem, p []byte) int {
	if len(p) == 4 && len(mem) >= 4 {
		word := unsafe.Pointer(&mem[0])
		if uintptr(word)%4 == 0 {
			atomic.StoreUint32((*uint32)(word), binary.NativeEndian.Uint32(p))
			return 4
		}
	}
	return copy(mem, p)
}
