package vfiouser

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sort"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
)

// region is a range of addresses that the card may reach.
type region struct {
	iova, size  uint64
	read, write bool
	mem         []byte  // nil if it is reached by messages
	file        *shared // that mem is part of
}

func (r *region) last() uint64 { return r.iova + r.size - 1 }

// shared is a file of the client mapped into this process.
type shared struct {
	key  fileKey
	mem  []byte
	refs int
}

type fileKey struct {
	dev, ino uint64
	writable bool
}

// space is the card's address space as the client has mapped it.
type space struct {
	mu      sync.RWMutex
	regions []region // ordered, without overlap
	files   map[fileKey]*shared
}

// idleFiles is the number of unused mappings that are kept for the next map of the same file.
const idleFiles = 8

// after returns the index of the first region that begins behind iova.
func (s *space) after(iova uint64) int {
	return sort.Search(len(s.regions), func(i int) bool { return s.regions[i].iova > iova })
}

// add maps a region; fd is -1 if there is none, and stays the caller's.
func (s *space) add(m dmaMap, fd int) error {
	if fd < 0 && m.flags&mapModes != 0 {
		return syscall.EINVAL
	}
	r := region{iova: m.iova, size: m.length, read: m.flags&mapRead != 0, write: m.flags&mapWrite != 0}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.after(m.iova)
	if i > 0 && s.regions[i-1].last() >= m.iova || i < len(s.regions) && s.regions[i].iova <= r.last() {
		return syscall.EEXIST
	}
	if len(s.regions) >= maxDMAMaps {
		return syscall.ENOSPC
	}
	if fd >= 0 {
		f, err := s.open(fd, m.offset, m.length, r.write)
		if err != nil {
			return err
		}
		f.refs++
		r.file, r.mem = f, f.mem[m.offset:m.offset+m.length:m.offset+m.length]
	}
	s.regions = append(s.regions, region{})
	copy(s.regions[i+1:], s.regions[i:])
	s.regions[i] = r
	return nil
}

// open returns the mapping of a file that holds the given part of it.
func (s *space) open(fd int, offset, length uint64, write bool) (*shared, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, syscall.EINVAL
	}
	if uint64(st.Size) < offset+length || st.Size <= 0 {
		return nil, syscall.EINVAL
	}
	key := fileKey{st.Dev, st.Ino, write}
	if f := s.files[key]; f != nil && uint64(len(f.mem)) >= offset+length {
		return f, nil
	}
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of a file: %w", st.Size, err)
	}
	f := &shared{key: key, mem: mem}
	if old := s.files[key]; old != nil && old.refs == 0 {
		unix.Munmap(old.mem)
	}
	if s.files == nil {
		s.files = make(map[fileKey]*shared)
	}
	s.files[key] = f
	return f, nil
}

// release drops a region's use of its file.
func (s *space) release(r *region) {
	f := r.file
	if f == nil {
		return
	}
	if f.refs--; f.refs > 0 {
		return
	}
	if s.files[f.key] == f && len(s.files) <= idleFiles {
		return
	}
	if s.files[f.key] == f {
		delete(s.files, f.key)
	}
	unix.Munmap(f.mem)
}

// remove takes everything inside the range from the card, and waits for the accesses under way. What lies only partly in it
// is cut: nothing of the range stays reachable, whatever the client meant.
func (s *space) remove(m dmaUnmap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.flags&unmapAll != 0 {
		m.iova, m.length = 0, ^uint64(0)
	}
	if m.length == 0 {
		return
	}
	last := m.iova + m.length - 1
	from := s.after(m.iova)
	if from > 0 && s.regions[from-1].last() >= m.iova {
		from--
	}
	to := s.after(last)
	var kept []region
	for _, r := range s.regions[from:to] {
		if r.iova < m.iova {
			kept = append(kept, r.cut(r.iova, m.iova-r.iova))
		}
		if r.last() > last {
			kept = append(kept, r.cut(last+1, r.last()-last))
		}
	}
	for _, k := range kept {
		if k.file != nil {
			k.file.refs++
		}
	}
	for i := range s.regions[from:to] {
		s.release(&s.regions[from+i])
	}
	s.regions = append(s.regions[:from], append(kept, s.regions[to:]...)...)
}

// cut returns a part of a region.
func (r region) cut(iova, size uint64) region {
	if r.mem != nil {
		at := iova - r.iova
		r.mem = r.mem[at : at+size : at+size]
	}
	r.iova, r.size = iova, size
	return r
}

// close unmaps everything.
func (s *space) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make(map[*shared]bool)
	for _, f := range s.files {
		open[f] = true
	}
	for _, r := range s.regions {
		if r.file != nil {
			open[r.file] = true
		}
	}
	for f := range open {
		unix.Munmap(f.mem)
	}
	s.regions, s.files = nil, nil
}

// copyMax bounds the bytes moved at once, and so the time that an unmap may wait.
const copyMax = 1 << 20

// access moves the front of p, up to the end of a region. It returns the number of bytes, or 0 for a region that is reached
// by messages, together with its length.
func (s *space) access(iova uint64, p []byte, write bool) (done, viaMessages int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i := s.after(iova)
	if i == 0 || s.regions[i-1].last() < iova {
		return 0, 0, fmt.Errorf("%#x: %w", iova, model.ErrUnmapped)
	}
	r := &s.regions[i-1]
	if write && !r.write || !write && !r.read {
		return 0, 0, fmt.Errorf("%#x: %w", iova, model.ErrPermission)
	}
	n := int(min(uint64(len(p)), r.size-(iova-r.iova)))
	if r.mem == nil {
		return 0, n, nil
	}
	n = min(n, copyMax)
	return n, 0, move(r.mem[iova-r.iova:][:n], p[:n], write)
}

var errFault = errors.New("the client's memory is gone")

// move copies between the client's memory and p. A client may shrink its file at any time; what would be a bus error then is
// a failed access.
func move(mem, p []byte, write bool) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errFault, r)
		}
	}()
	if write {
		model.StoreDMA(mem, p)
	} else {
		copy(p, mem)
	}
	return nil
}

// isEventfd reports whether a descriptor is an eventfd, the only thing that can be signalled without ever blocking.
func isEventfd(fd int) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && name == "anon_inode:[eventfd]"
}
