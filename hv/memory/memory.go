package memory

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Layout of the guest's physical address space.
const (
	PageSize = 4096
	// GapStart is where RAM below 4 GiB ends at the latest; ECAM and 32-bit
	// BARs, the IOAPIC and the LAPICs lie between it and GapEnd.
	GapStart = 0xc000_0000
	GapEnd   = 0x1_0000_0000
)

// Region is one run of guest physical addresses backed by the memfd.
type Region struct {
	GPA    uint64 // first guest physical address
	Size   uint64 // bytes, a multiple of PageSize
	Offset int64  // where the region begins in the memfd
	Data   []byte // the region in this process
}

// End is the first address after the region.
func (r Region) End() uint64 { return r.GPA + r.Size }

// Memory is all RAM of one guest. Its methods are safe for concurrent use; the
// content is shared with the guest and has no lock.
type Memory struct {
	file    *os.File
	opts    Options
	mapping []byte
	regions []Region
	// room is the reserved address range that mapping lies in.
	room     unsafe.Pointer
	roomSize uintptr
	// pinned keeps every page where it is.
	pinned bool
}

// New makes size bytes of guest RAM, a multiple of PageSize.
func New(size int64) (*Memory, error) { return NewFrom(size, Options{}) }

// NewFrom is New with the pages that o asks for, whose size divides that of the
// memory. Without them it is QV_ERR_HUGEPAGE, without the node QV_ERR_NUMA.
func NewFrom(size int64, o Options) (*Memory, error) {
	if unit := max(o.HugePage, PageSize); size <= 0 || size%unit != 0 {
		return nil, qverr.New(qverr.Inval, "guest memory of %d bytes: a multiple of %d is needed", size, unit)
	}
	flags, err := o.memfdFlags()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("guest-ram", flags)
	if err != nil {
		return nil, o.explain(size, fmt.Errorf("create memfd: %w", err))
	}
	m := &Memory{file: os.NewFile(uintptr(fd), "guest-ram"), opts: o}
	err = m.init(size)
	if err == nil {
		err = m.place(o)
	}
	if err != nil {
		if m.mapping != nil {
			err = errors.Join(err, unix.MunmapPtr(m.room, m.roomSize))
		}
		m.file.Close()
		return nil, o.explain(size, err)
	}
	return m, nil
}

func (m *Memory) init(size int64) error {
	fd := int(m.file.Fd())
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("set size of memfd: %w", err)
	}
	// A memfd that somebody shrinks would kill us with SIGBUS.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal memfd: %w", err)
	}
	data, err := m.mapAligned(fd, int(size))
	if err != nil {
		return fmt.Errorf("map memfd: %w", err)
	}
	// Guest memory has no place in a core dump. Both are advice, so an old kernel
	// that refuses them changes nothing. Huge pages are what the host has for shared
	// memory (/sys/kernel/mm/transparent_hugepage/shmem_enabled): with them a guest
	// touches its RAM in a five-hundredth of the page faults.
	_ = unix.Madvise(data, unix.MADV_DONTDUMP)
	if m.opts.HugePage == 0 {
		_ = unix.Madvise(data, unix.MADV_HUGEPAGE)
	}
	low := min(uint64(size), GapStart)
	m.regions = []Region{{GPA: 0, Size: low, Data: data[:low:low]}}
	if high := uint64(size) - low; high > 0 {
		m.regions = append(m.regions, Region{GPA: GapEnd, Size: high, Offset: int64(low), Data: data[low:]})
	}
	return nil
}

// hugePage is the x86 huge page, which KVM maps where it can.
const hugePage = 2 << 20

// mapAligned maps the memfd at a multiple of the alignment: it reserves room for that
// and puts the mapping over it.
func (m *Memory) mapAligned(fd, size int) ([]byte, error) {
	align := m.opts.alignment()
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(size)+align, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	m.room, m.roomSize = room, uintptr(size)+align
	skip := -uintptr(room) % align
	p, err := unix.MmapPtr(fd, 0, unsafe.Add(room, skip), uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_FIXED|m.opts.mapFlags())
	if err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(room, m.roomSize))
	}
	m.mapping = unsafe.Slice((*byte)(p), size)
	return m.mapping, nil
}

// Close unmaps the memory. Nothing may use it afterwards, KVM included.
func (m *Memory) Close() error {
	err := unix.MunmapPtr(m.room, m.roomSize)
	m.mapping, m.regions = nil, nil
	if e := m.file.Close(); err == nil {
		err = e
	}
	return err
}

// Regions lists all RAM by ascending address. The caller must not change it.
func (m *Memory) Regions() []Region { return m.regions }

// FD is the memfd, for vhost-user and VFIO; Region.Offset says where in it.
func (m *Memory) FD() int { return int(m.file.Fd()) }

// Size is the RAM in bytes.
func (m *Memory) Size() uint64 { return uint64(len(m.mapping)) }

// LowEnd is the first address after the RAM below 4 GiB.
func (m *Memory) LowEnd() uint64 { return m.regions[0].End() }

// Slice gives the n bytes at gpa, which must lie in one region. The slice is
// the guest's memory itself.
func (m *Memory) Slice(gpa, n uint64) ([]byte, error) {
	i := sort.Search(len(m.regions), func(i int) bool { return gpa < m.regions[i].End() })
	if i < len(m.regions) {
		r := &m.regions[i]
		// gpa < End, so End-gpa cannot wrap; comparing against it keeps gpa+n
		// out of the arithmetic, where it could.
		if gpa >= r.GPA && n <= r.End()-gpa {
			off := gpa - r.GPA
			return r.Data[off : off+n : off+n], nil
		}
	}
	return nil, qverr.New(qverr.EPTViolation, "%d bytes at guest address %#x are not RAM", n, gpa)
}

// ReadAt copies len(p) bytes from gpa.
func (m *Memory) ReadAt(p []byte, gpa uint64) error {
	s, err := m.Slice(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(p, s)
	return nil
}

// WriteAt copies p to gpa.
func (m *Memory) WriteAt(p []byte, gpa uint64) error {
	s, err := m.Slice(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(s, p)
	return nil
}

// Zero clears n bytes at gpa.
func (m *Memory) Zero(gpa, n uint64) error {
	s, err := m.Slice(gpa, n)
	if err != nil {
		return err
	}
	clear(s)
	return nil
}

// Pin says that a device reaches the pages by itself (VFIO): from now on Discard
// clears them instead of giving them back, and DiscardRange is refused. It must come
// before the guest runs.
func (m *Memory) Pin() { m.pinned = true }

// Discard gives every page back to the host; all RAM then reads as zero. Nothing
// may run on the memory meanwhile.
func (m *Memory) Discard() error {
	if m.pinned || m.opts.HugePage != 0 {
		clear(m.mapping) // huge pages given back would be anybody's: the pool is not ours
		return nil
	}
	err := unix.Fallocate(int(m.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(m.mapping)))
	if err != nil {
		return qverr.New(qverr.Generic, "discard guest memory: %w", err)
	}
	return nil
}

// Touched is the RAM in use in bytes: what the guest, a device or the loader
// wrote since New or Discard.
func (m *Memory) Touched() int64 {
	var st unix.Stat_t
	if unix.Fstat(int(m.file.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// DiscardRange gives the whole pages of [gpa, gpa+n) back to the host; they
// read as zero afterwards. Huge pages stay as they are. QV_ERR_BUSY when they are pinned.
func (m *Memory) DiscardRange(gpa, n uint64) error {
	if m.pinned {
		return qverr.New(qverr.Busy, "guest memory is pinned for a device")
	}
	s, err := m.Slice(gpa, n)
	if err != nil {
		return err
	}
	skip := -gpa % PageSize
	if n < skip || m.opts.HugePage != 0 {
		return nil
	}
	s = s[skip : skip+(n-skip)&^(PageSize-1)]
	if len(s) == 0 {
		return nil
	}
	if err := unix.Madvise(s, unix.MADV_REMOVE); err != nil {
		return qverr.New(qverr.Generic, "discard %d bytes of guest memory: %w", n, err)
	}
	return nil
}
