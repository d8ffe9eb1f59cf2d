package memory

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Options say where guest RAM comes from. The zero value is ordinary pages of any
// NUMA node.
type Options struct {
	// HugePage is the size of pages from the host's pool in bytes, 2 MiB or 1 GiB; 0
	// for ordinary pages. The pool must have them all when the guest starts.
	HugePage int64
	// Node is the NUMA node that all pages are to be of; nil for any.
	Node *int
}

// memfdFlags are those of memfd_create for pages of this size.
func (o Options) memfdFlags() (int, error) {
	const base = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	switch o.HugePage {
	case 0:
		return base, nil
	case 2 << 20:
		return base | unix.MFD_HUGETLB | unix.MFD_HUGE_2MB, nil
	case 1 << 30:
		return base | unix.MFD_HUGETLB | unix.MFD_HUGE_1GB, nil
	}
	return 0, qverr.New(qverr.Inval, "huge pages of %d bytes", o.HugePage)
}

// mapFlags reserve huge pages at the mapping, so that none is missing later, where a
// guest would die of it; ordinary memory is given when it is touched. Pages of one
// node cannot be reserved: place takes them.
func (o Options) mapFlags() int {
	if o.HugePage != 0 && o.Node == nil {
		return 0
	}
	return unix.MAP_NORESERVE
}

// alignment is what a mapping and the guest's addresses share: a page of the guest
// and that behind it must be equal modulo the page size for KVM to map them as one.
func (o Options) alignment() uintptr { return uintptr(max(o.HugePage, hugePage)) }

// place binds the memory to its node, and takes huge pages from it.
func (m *Memory) place(o Options) error {
	if o.Node == nil {
		return nil
	}
	if err := bind(m.mapping, *o.Node); err != nil {
		return qverr.New(qverr.NUMA, "bind guest memory to NUMA node %d: %w", *o.Node, err).With("node", *o.Node)
	}
	if o.HugePage == 0 {
		return nil
	}
	if err := unix.Fallocate(int(m.file.Fd()), 0, 0, int64(len(m.mapping))); err != nil {
		return noHugePages(o, int64(len(m.mapping)), err)
	}
	return nil
}

// bind is mbind(2) with MPOL_BIND: pages come from the node, or not at all.
func bind(data []byte, node int) error {
	const modeBind = 2
	var mask [16]uint64 // 1024 nodes
	if node < 0 || node >= 64*len(mask) {
		return unix.EINVAL
	}
	mask[node/64] = 1 << (node % 64)
	// The kernel takes one bit less than it is told.
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), modeBind,
		uintptr(unsafe.Pointer(&mask[0])), uintptr(64*len(mask)+1), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// explain gives a failure its code, unless it has one: for huge pages it is the pool
// that has too few.
func (o Options) explain(size int64, err error) error {
	var coded *qverr.Error
	switch {
	case errors.As(err, &coded):
		return err
	case o.HugePage != 0:
		return noHugePages(o, size, err)
	}
	return qverr.New(qverr.NoMem, "%d bytes of guest memory: %w", size, err)
}

func noHugePages(o Options, size int64, err error) error {
	where := ""
	if o.Node != nil {
		where = fmt.Sprintf(" on NUMA node %d", *o.Node)
	}
	return qverr.New(qverr.Hugepage, "%d huge pages of %d MiB for guest memory%s: %w", size/o.HugePage, o.HugePage>>20, where, err)
}
