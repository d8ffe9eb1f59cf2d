package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
)

// idleTime is how long a receiver leaves a TAP alone that cannot be read.
const idleTime = time.Second

// errLimit says that the limit of the device is reached.
var errLimit = errors.New("limit reached")

// receiver brings packets from a TAP into the guest. It reads them where they are
// to lie: into buffers that the guest has given beforehand, of which it keeps
// enough in hand for the largest packet.
type receiver struct {
	file     *os.File
	raw      syscall.RawConn
	read     func(fd uintptr) bool // attempt; made once, since a closure is an allocation
	counters *Counters
	wg       sync.WaitGroup
	done     chan struct{} // closed by stop
	gate     *limit.Gate
	opened   chan struct{} // the gate was opened

	mu        sync.Mutex // guards what follows; held while guest memory is touched
	changed   sync.Cond
	queue     *virtio.Queue
	host      virtio.Host
	mergeable bool
	paused    bool
	stopping  bool
	err       error                             // why the last attempt ended, when it did not for want of buffers
	hand      [virtio.MaxQueueSize]virtio.Chain // buffers taken from the guest, the next first
	held      int                               // how many
	iov       vector
	room      int // bytes of the buffers in hand
	// Behind the last buffer lies what a packet reaches that does not fit: one byte, or
	// with mergeable buffers room for the largest packet, whose rest waits there until
	// the guest gives more. late is the length of such a packet, 0 for none, and split
	// how much of it lies in the buffers.
	beyond      [1]byte
	rest        []byte
	late, split int
}

func (r *receiver) init(file *os.File, counters *Counters, limiter *limit.Limiter) (err error) {
	r.opened = make(chan struct{}, 1)
	r.gate = limit.NewGate(limiter, func() {
		select {
		case r.opened <- struct{}{}:
		default: // it has not been noticed yet that it was opened before
		}
	})
	r.file, r.counters = file, counters
	r.read, r.changed.L = r.attempt, &r.mu
	r.raw, err = file.SyscallConn()
	return err
}

func (r *receiver) start(mergeable bool, q *virtio.Queue, host virtio.Host) {
	r.mu.Lock()
	r.queue, r.host, r.mergeable, r.stopping, r.held, r.late, r.err = q, host, mergeable, false, 0, 0, nil
	if mergeable && r.rest == nil {
		r.rest = make([]byte, maxPacket)
	}
	r.mu.Unlock()
	r.done = make(chan struct{})
	_ = r.file.SetReadDeadline(time.Time{})
	q.Kick.Rearm()
	r.wg.Go(r.run)
}

func (r *receiver) stop() {
	r.mu.Lock()
	r.stopping = true
	r.changed.Broadcast()
	r.mu.Unlock()
	close(r.done)
	_ = r.file.SetReadDeadline(time.Unix(1, 0))
	r.queue.Kick.Interrupt()
	r.wg.Wait()
}

func (r *receiver) pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = true
}

func (r *receiver) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = false
	r.changed.Broadcast()
}

// run waits for packets while there are buffers, and for buffers otherwise. While
// it waits for the guest the TAP's own queue fills and drops, as a network card does.
func (r *receiver) run() {
	for {
		err := r.raw.Read(r.read)
		if err != nil { // the deadline of stop
			return
		}
		r.mu.Lock()
		err, stopping := r.err, r.stopping
		r.err = nil
		r.mu.Unlock()
		switch {
		case stopping:
			return
		case err == nil:
			if !r.queue.Kick.Wait() {
				return
			}
		case errors.Is(err, errLimit):
			select {
			case <-r.opened:
			case <-r.done:
				return
			}
		case errors.Is(err, virtio.ErrDriver):
			r.host.NeedsReset(err)
			return
		default:
			// The interface is gone or not ready. Ask again when something may have changed.
			if !r.idle() {
				return
			}
		}
	}
}

func (r *receiver) idle() bool {
	timer := time.NewTimer(idleTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.done:
		return false
	}
}

// attempt moves packets until there are none, for which the poller waits then
// (false), or no buffers, or an error.
func (r *receiver) attempt(fd uintptr) bool {
	for {
		interrupt, more, ended := r.one(int(fd))
		if interrupt {
			r.queue.Interrupt()
		}
		if !more {
			return ended
		}
	}
}

// one moves one packet.
func (r *receiver) one(fd int) (interrupt, more, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.paused && !r.stopping {
		r.changed.Wait()
	}
	if r.stopping {
		return false, false, true
	}
	if !r.gate.Open() {
		r.err = errLimit
		return false, false, true
	}
	ok, err := r.gather()
	if err != nil || !ok {
		r.err = err
		return false, false, true
	}
	n, errno := r.late, unix.Errno(0)
	if n == 0 {
		n, errno = r.iov.transfer(unix.SYS_READV, fd)
	}
	switch {
	case errno == unix.EAGAIN:
		return false, false, false
	case errno != 0:
		r.err = errno
		return false, false, true
	case n <= headerSize:
		return false, true, false
	}
	if interrupt, err = r.deliver(n); err != nil {
		r.err = err
		return false, false, true
	}
	return interrupt, true, false
}

// gather takes buffers from the guest until the largest packet fits, or there are
// no more, and lists them for readv. It returns false when there is none at all, or too
// little for a packet that waits, and the guest will kick.
func (r *receiver) gather() (bool, error) {
	r.iov.reset()
	for i := range r.held {
		r.iov.add(r.hand[i].Write)
	}
	for r.held == 0 || r.mergeable && r.iov.size < maxPacket && r.held < len(r.hand) {
		if len(r.iov.list)+virtio.MaxQueueSize > maxVector {
			break // a driver that gives crumbs
		}
		ok, err := r.queue.Pop(&r.hand[r.held])
		if err != nil {
			return false, err
		}
		if ok {
			r.queue.DisableKick()
			r.iov.add(r.hand[r.held].Write)
			r.held++
			continue
		}
		if r.held > 0 && (r.iov.size >= r.late || r.held == r.queue.Size()) {
			break
		}
		if !r.queue.EnableKick() {
			return false, nil
		}
	}
	r.room = r.iov.size
	beyond := r.beyond[:]
	if r.mergeable {
		beyond = r.rest
	}
	r.iov.add([][]byte{beyond})
	return true, nil
}

// settle puts the rest of a packet that waited into the buffers that came since, and
// tells whether one that does not fit is to wait: while the guest can give more.
func (r *receiver) settle(n int) (wait bool) {
	switch {
	case n <= r.room:
		if r.late > 0 {
			r.put(r.split, r.rest[:n-r.split])
		}
		r.late = 0
	case r.mergeable && r.late == 0 && r.held < r.queue.Size():
		r.late, r.split = n, r.room
		return true
	}
	return false
}

// put writes p at byte off of the buffers in hand.
func (r *receiver) put(off int, p []byte) {
	for i := range r.held {
		size := virtio.Len(r.hand[i].Write)
		if off >= size {
			off -= size
			continue
		}
		n := min(len(p), size-off)
		putAt(r.hand[i].Write, off, p[:n])
		if p, off = p[n:], 0; len(p) == 0 {
			return
		}
	}
}

// deliver gives the guest the n bytes that lie in its buffers.
func (r *receiver) deliver(n int) (interrupt bool, err error) {
	if r.settle(n) {
		return false, nil
	}
	if n > r.room {
		r.counters.RxDropped.Add(1)
		r.late = 0
		if r.mergeable {
			return false, nil // the next one may fit
		}
		n = 0 // the guest sees by the length that there is nothing in it
	}
	used, rest := 0, n
	for ; rest > 0; used++ {
		rest -= virtio.Len(r.hand[used].Write)
	}
	if n > 0 && virtio.Len(r.hand[0].Write) < headerSize {
		return false, fmt.Errorf("%w: a receive buffer of less than a header", virtio.ErrDriver)
	}
	if n > 0 {
		r.gate.Charge(uint64(n - headerSize))
		r.setBuffers(uint16(used))
		r.counters.RxPackets.Add(1)
		r.counters.RxBytes.Add(uint64(n - headerSize))
	}
	used = max(used, 1)
	for i := range used {
		part := min(n, virtio.Len(r.hand[i].Write))
		r.queue.Fill(&r.hand[i], uint32(part))
		n -= part
	}
	r.queue.Publish()
	r.drop(used)
	return r.queue.NeedsInterrupt(), nil
}

// drop forgets the first n chains in hand. Their slices are used again.
func (r *receiver) drop(n int) {
	for i := n; i < r.held; i++ {
		r.hand[i-n], r.hand[i] = r.hand[i], r.hand[i-n]
	}
	r.held -= n
}

// setBuffers writes num_buffers, bytes 10 and 11 of the header.
func (r *receiver) setBuffers(n uint16) {
	var v [2]byte
	binary.LittleEndian.PutUint16(v[:], n)
	putAt(r.hand[0].Write, headerSize-len(v), v[:])
}

// putAt writes p at byte off of buffers.
func putAt(buffers [][]byte, off int, p []byte) {
	for _, b := range buffers {
		if off >= len(b) {
			off -= len(b)
			continue
		}
		n := copy(b[off:], p)
		if p, off = p[n:], 0; len(p) == 0 {
			return
		}
	}
}
