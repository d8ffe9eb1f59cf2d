package uring

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// params is struct io_uring_params of <linux/io_uring.h>.
type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// SQE is struct io_uring_sqe: one operation.
type SQE struct {
	Opcode   uint8
	Flags    uint8
	ioprio   uint16
	FD       int32
	Off      uint64
	Addr     uint64
	Len      uint32
	OpFlags  uint32 // RWF_*, or IORING_FSYNC_DATASYNC
	UserData uint64
	_        [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// Operations and flags of an SQE, <linux/io_uring.h>.
const (
	OpReadv     = 1
	OpWritev    = 2
	OpFsync     = 3
	OpFallocate = 17
	OpRead      = 22
	OpWrite     = 23

	FsyncDatasync = 1
)

const (
	offSQRing, offSQEs        = 0, 0x10000000
	featSingleMmap            = 1 << 0
	featNoDrop                = 1 << 1
	featSubmitStable          = 1 << 2
	needed                    = featSingleMmap | featNoDrop | featSubmitStable
	registerFiles             = 2
	registerEventFD           = 4
	registerRestrictions      = 11
	registerEnable            = 12
	setupDisabled             = 1 << 6 // until registerEnable
	restrictSQEOp             = 1
	cqEventFDDisabled         = 1
	sqeSize, cqeSize          = 64, 16
	maxEntries                = 4096
	_                    uint = sqeSize - uint(unsafe.Sizeof(SQE{})) // both sizes agree
	_                    uint = uint(unsafe.Sizeof(SQE{})) - sqeSize
)

// Ring is one io_uring. Its methods are for one goroutine at a time.
type Ring struct {
	fd          int
	rings, sqes []byte // mappings

	sqHead, sqTail *uint32 // shared with the kernel
	cqHead, cqTail *uint32
	cqFlags        *uint32
	sqMask, cqMask uint32
	entries        uint32
	sqe            unsafe.Pointer // of sqes
	cqe            unsafe.Pointer // in rings

	tail uint32 // the next entry of the submission ring to fill
}

// New makes a ring with room for entries operations, a power of two up to 4096. Completions signal eventFD while the ring is armed; it begins
// disarmed. errors.ErrUnsupported says that this kernel has no io_uring or not
// enough of it (5.10 is needed).
func New(entries uint32, eventFD int) (*Ring, error) {
	if entries == 0 || entries > maxEntries || entries&(entries-1) != 0 {
		return nil, fmt.Errorf("io_uring with %d entries", entries)
	}
	p := params{flags: setupDisabled}
	ringFD, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	switch errno {
	case 0:
	case unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL:
		return nil, fmt.Errorf("io_uring_setup: %w: %w", errors.ErrUnsupported, errno)
	default:
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &Ring{fd: int(ringFD), entries: p.sqEntries}
	unix.CloseOnExec(r.fd)
	err := r.init(&p)
	if err == nil {
		err = r.register(eventFD)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) init(p *params) (err error) {
	if p.features&needed != needed || p.cq.flags == 0 {
		return fmt.Errorf("io_uring: features %#x: %w", p.features, errors.ErrUnsupported)
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+cqeSize*p.cqEntries)
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, offSQRing, int(size), prot, flags); err != nil {
		return fmt.Errorf("io_uring: map rings: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, offSQEs, int(sqeSize*p.sqEntries), prot, flags); err != nil {
		return fmt.Errorf("io_uring: map entries: %w", err)
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask, r.cqFlags = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask), word(p.cq.flags)
	r.sqe, r.cqe = unsafe.Pointer(&r.sqes[0]), unsafe.Pointer(&r.rings[p.cq.cqes])
	// Entries are submitted in the order of the ring, so the index never changes.
	for i := range p.sqEntries {
		*word(p.sq.array + 4*i) = i
	}
	r.tail = *r.sqTail
	r.Disarm()
	return nil
}

// register ties the eventfd to the ring and lets it do what a disk needs, and no more: an
// operation of a ring passes the system call filter of a jail.
func (r *Ring) register(eventFD int) error {
	fd := int32(eventFD)
	// struct io_uring_restriction: operations that are not listed are refused from then on,
	// and all of io_uring_register.
	type restriction struct {
		kind uint16
		op   uint8
		_    [13]byte
	}
	var list []restriction
	for _, op := range []uint8{OpReadv, OpWritev, OpFsync, OpFallocate, OpRead, OpWrite} {
		list = append(list, restriction{kind: restrictSQEOp, op: op})
	}
	for _, step := range []struct {
		name  string
		op    uintptr
		arg   unsafe.Pointer
		count int
	}{
		{"register eventfd", registerEventFD, unsafe.Pointer(&fd), 1},
		{"restrict", registerRestrictions, unsafe.Pointer(&list[0]), len(list)},
		{"enable", registerEnable, nil, 0},
	} {
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), step.op, uintptr(step.arg), uintptr(step.count), 0, 0); errno != 0 {
			return fmt.Errorf("io_uring: %s: %w", step.name, errno)
		}
	}
	return nil
}

// Next is the next entry to fill, cleared; nil while
// the ring is full. The kernel sees it with Submit.
func (r *Ring) Next() *SQE {
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.entries {
		return nil
	}
	e := (*SQE)(unsafe.Add(r.sqe, sqeSize*uintptr(r.tail&r.sqMask)))
	*e = SQE{}
	r.tail++
	return e
}

// Submit gives all entries since the last Submit to the kernel. What the kernel can
// do without waiting is complete when it returns.
func (r *Ring) Submit() error {
	atomic.StoreUint32(r.sqTail, r.tail)
	for {
		n := r.tail - atomic.LoadUint32(r.sqHead)
		if n == 0 {
			return nil
		}
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
		switch errno {
		case 0, unix.EINTR:
		case unix.EAGAIN, unix.EBUSY:
			runtime.Gosched() // the kernel is short of memory for the moment
		default:
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
}

// Drop takes back the last entry that the kernel has not seen, and returns its
// UserData: after a Submit that failed.
func (r *Ring) Drop() (user uint64, ok bool) {
	if r.tail == atomic.LoadUint32(r.sqHead) {
		return 0, false
	}
	r.tail--
	atomic.StoreUint32(r.sqTail, r.tail)
	return (*SQE)(unsafe.Add(r.sqe, sqeSize*uintptr(r.tail&r.sqMask))).UserData, true
}

// Completion takes the next completion: the UserData of its entry, and the result,
// a negative errno for a failure.
func (r *Ring) Completion() (user uint64, res int32, ok bool) {
	head := *r.cqHead // only we write it
	if head == atomic.LoadUint32(r.cqTail) {
		return 0, 0, false
	}
	c := *(*cqe)(unsafe.Add(r.cqe, cqeSize*uintptr(head&r.cqMask)))
	atomic.StoreUint32(r.cqHead, head+1)
	return c.userData, c.res, true
}

// Arm has completions signal the eventfd, and tells whether there are some already,
// which may not.
func (r *Ring) Arm() bool {
	atomic.StoreUint32(r.cqFlags, 0) // a locked store: ordered before the load
	return *r.cqHead != atomic.LoadUint32(r.cqTail)
}

// Disarm spares the signals while the completions are looked for anyway.
func (r *Ring) Disarm() { atomic.StoreUint32(r.cqFlags, cqEventFDDisabled) }

// Close frees the ring. Nothing may be in flight.
func (r *Ring) Close() {
	for _, m := range [][]byte{r.sqes, r.rings} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	unix.Close(r.fd)
}
