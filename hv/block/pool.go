package block

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// pool is a Queue whose requests goroutines work on by a Device's methods: for
// formats and filters that have no other way, and for kernels without io_uring.
// The goroutines come as they are needed and stay until Close.
type pool struct {
	dev     Device
	threads int
	eventFD int
	taken   list // by Submit, not begun
	wg      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	work    sync.Cond
	todo    list
	done    list
	armed   bool
	closed  bool
	workers int
	idle    int
}

func newPool(d Device, o QueueOptions) *pool {
	p := &pool{dev: d, threads: max(1, o.Threads), eventFD: o.EventFD}
	p.work.L = &p.mu
	return p
}

func (p *pool) Submit(r *Request) { p.taken.push(r) }

func (p *pool) Commit() {
	if p.taken.first == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := p.taken.first; r != nil; r = r.next {
		switch {
		case p.idle > 0:
			p.idle-- // the one that is woken is not idle from now on
			p.work.Signal()
		case p.workers < p.threads:
			p.workers++
			p.wg.Go(p.serve)
		}
	}
	p.todo.join(&p.taken)
}

func (p *pool) serve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		r := p.todo.pop()
		if r == nil {
			if p.closed {
				return
			}
			p.idle++
			p.work.Wait()
			continue
		}
		p.mu.Unlock()
		r.Err = Perform(p.dev, r)
		p.mu.Lock()
		p.done.push(r)
		if p.armed {
			p.armed = false
			signal(p.eventFD)
		}
	}
}

func (p *pool) Done() *Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done.pop()
}

func (p *pool) Arm() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = true
	return p.done.first != nil
}

func (p *pool) Disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
}

func (p *pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.idle = 0
	p.work.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

// Perform does a request at once, by the methods of a device.
func Perform(d Device, r *Request) error {
	var err error
	switch r.Op {
	case OpRead, OpWrite:
		if raw, ok := d.(*Raw); ok {
			return raw.transfer(r) // without an allocation, and durable by itself
		}
		if r.Op == OpRead {
			return d.ReadVec(r.IOV, r.Off)
		}
		err = d.WriteVec(r.IOV, r.Off)
	case OpFlush:
		return d.Flush()
	case OpDiscard:
		return d.Discard(r.Off, r.N)
	case OpWriteZeroes:
		err = d.WriteZeroes(r.Off, r.N, r.Unmap)
	default:
		err = qverr.New(qverr.Unsupported, "operation %d of a disk", r.Op)
	}
	if err == nil && r.Durable {
		err = d.Flush()
	}
	return err
}

// signal makes an eventfd readable.
func signal(fd int) {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// EAGAIN means that the counter is full: it is readable already.
	_, _ = unix.Write(fd, one[:])
}
