package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Release gives the whole pages within s, a slice of the guest's memory, back to
// the host, and returns their size in bytes. They read as zero afterwards, and take
// memory again when they are written. QV_ERR_BUSY when they are pinned.
func (m *Memory) Release(s []byte) (int, error) {
	if m.pinned {
		return 0, qverr.New(qverr.Busy, "guest memory is pinned for a device")
	}
	if len(s) == 0 {
		return 0, nil
	}
	off := uintptr(unsafe.Pointer(unsafe.SliceData(s))) - uintptr(unsafe.Pointer(unsafe.SliceData(m.mapping)))
	if off >= uintptr(len(m.mapping)) || uintptr(len(s)) > uintptr(len(m.mapping))-off {
		return 0, qverr.New(qverr.Inval, "release %d bytes that are not guest memory", len(s))
	}
	// The mapping is aligned, so an offset tells where pages begin.
	skip := -off % PageSize
	if uintptr(len(s)) <= skip {
		return 0, nil
	}
	s = s[skip : skip+(uintptr(len(s))-skip)&^(PageSize-1)]
	if len(s) == 0 {
		return 0, nil
	}
	if err := unix.Madvise(s, unix.MADV_REMOVE); err != nil {
		return 0, qverr.New(qverr.Generic, "release %d bytes of guest memory: %w", len(s), err)
	}
	return len(s), nil
}
