package block

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/hv/block/uring"
	"quantavirt/internal/qverr"
)

// ringQueue is a Queue on io_uring. What the ring cannot do (a request that O_DIRECT
// cannot take, zeroes on a file system without them) goes to a pool.
type ringQueue struct {
	raw  *Raw
	ring *uring.Ring
	pool *pool
	slow int // requests that the pool has

	slots []*Request // by UserData
	free  []uint16
	done  list // without the ring: refused, or nothing to do
	again bool // something was put into the ring by Done
}

func newRingQueue(raw *Raw, ring *uring.Ring, o QueueOptions) *ringQueue {
	q := &ringQueue{raw: raw, ring: ring, pool: newPool(raw, o), slots: make([]*Request, o.Depth)}
	for i := range q.slots {
		q.free = append(q.free, uint16(i))
	}
	return q
}

func (q *ringQueue) Submit(r *Request) {
	r.Err = nil
	switch r.Op {
	case OpRead, OpWrite:
		if r.Err = q.raw.check(r); r.Err != nil {
			break
		}
		if !q.raw.aligned(r.IOV, r.Off) {
			q.leave(r)
			return
		}
		if r.vec.fill(r.IOV); r.vec.left == 0 {
			break
		}
		q.start(r)
		return
	case OpFlush:
		if q.raw.readOnly {
			break
		}
		q.start(r)
		return
	case OpDiscard, OpWriteZeroes:
		if r.Err = q.raw.checkClear(r.Off, r.N); r.Err != nil || r.N == 0 {
			break
		}
		if q.raw.clearMode(r) == 0 {
			q.leave(r)
			return
		}
		q.start(r)
		return
	default:
		r.Err = qverr.New(qverr.Unsupported, "operation %d of a disk", r.Op)
	}
	q.done.push(r)
}

// start puts a request, or what is left of it, into the ring.
func (q *ringQueue) start(r *Request) {
	n := len(q.free)
	if n == 0 {
		r.Err = qverr.New(qverr.Busy, "disk %s: more than %d requests at once", q.raw.file.Name(), len(q.slots))
		q.done.push(r)
		return
	}
	// There are as many entries as slots, and one may be empty only while its slot is.
	e := q.ring.Next()
	if e == nil {
		q.Commit()
		e = q.ring.Next()
	}
	slot := q.free[n-1]
	q.free = q.free[:n-1]
	q.slots[slot] = r
	q.encode(e, r)
	e.FD, e.UserData = int32(q.raw.fd), uint64(slot)
}

func (q *ringQueue) encode(e *uring.SQE, r *Request) {
	switch r.Op {
	case OpRead, OpWrite:
		e.Opcode = uring.OpReadv
		if r.Op == OpWrite {
			e.Opcode, e.OpFlags = uring.OpWritev, uint32(q.raw.writeFlags(r))
		}
		e.Off = uint64(r.Off + r.vec.done)
		iov := r.vec.next()
		if len(iov) == 1 && iov[0].Len <= maxTransfer {
			// One buffer: the kernel need not fetch a vector.
			e.Opcode += uring.OpRead - uring.OpReadv
			e.Addr, e.Len = uint64(uintptr(unsafe.Pointer(iov[0].Base))), uint32(iov[0].Len)
			return
		}
		e.Addr, e.Len = uint64(uintptr(unsafe.Pointer(&iov[0]))), uint32(len(iov))
	case OpFlush:
		e.Opcode, e.OpFlags = uring.OpFsync, uring.FsyncDatasync
	case OpDiscard, OpWriteZeroes:
		// Its length is in Addr, its mode in Len: io_uring_prep_fallocate(3).
		e.Opcode = uring.OpFallocate
		e.Off, e.Addr, e.Len = uint64(r.Off), uint64(r.N), q.raw.clearMode(r)
	}
}

// maxTransfer is MAX_RW_COUNT of Linux, rounded down to what is handy.
const maxTransfer = 1 << 30

func (q *ringQueue) Commit() {
	if err := q.ring.Submit(); err != nil {
		for user, ok := q.ring.Drop(); ok; user, ok = q.ring.Drop() {
			r := q.release(user)
			r.Err = storageError(err, "queue of disk %s", q.raw.file.Name())
			q.done.push(r)
		}
	}
	if q.slow > 0 {
		q.pool.Commit()
	}
}

// leave has the pool do a request.
func (q *ringQueue) leave(r *Request) {
	q.slow++
	q.pool.Submit(r)
}

func (q *ringQueue) release(user uint64) *Request {
	r := q.slots[user]
	q.slots[user] = nil
	q.free = append(q.free, uint16(user))
	return r
}

func (q *ringQueue) Done() *Request {
	for {
		if r := q.done.pop(); r != nil {
			return r
		}
		user, res, ok := q.ring.Completion()
		if ok {
			if r := q.release(user); q.complete(r, res) {
				return r
			}
			continue
		}
		if q.again {
			q.again = false
			q.Commit()
			continue
		}
		if q.slow == 0 {
			return nil
		}
		r := q.pool.Done()
		if r != nil {
			q.slow--
		}
		return r
	}
}

// complete takes a result of the kernel in, and tells whether the request is done.
func (q *ringQueue) complete(r *Request, res int32) bool {
	var err error
	if res < 0 {
		err = unix.Errno(-res)
	}
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		q.again = true
		q.start(r)
		return false
	}
	switch r.Op {
	case OpRead, OpWrite:
		if err == nil && res == 0 {
			err = io.ErrUnexpectedEOF // the file was cut while in use
		}
		if err != nil {
			r.Err = q.raw.transferError(r, err)
			return true
		}
		if r.vec.advance(int64(res)); r.vec.left > 0 {
			q.start(r)
			return false
		}
	case OpFlush:
		if err != nil {
			r.Err = storageError(err, "flush disk %s", q.raw.file.Name())
		}
	default:
		if err != nil {
			// It tries again, and knows what else there is.
			q.again = true
			q.leave(r)
			return false
		}
	}
	return true
}

func (q *ringQueue) Arm() bool {
	done := q.ring.Arm()
	if q.slow > 0 {
		done = q.pool.Arm() || done
	}
	return done || q.done.first != nil
}

// Disarm leaves the pool armed: an event too many does no harm.
func (q *ringQueue) Disarm() { q.ring.Disarm() }

func (q *ringQueue) Close() {
	q.pool.Close()
	q.ring.Close()
}
