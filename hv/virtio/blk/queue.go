package blk

import (
	"sync"
	"sync/atomic"
	"time"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
)

// batch is how many requests are begun before those that are done are looked for: one
// that is done at once does not wait long to be given back.
const batch = 32

// mode is what a queue's goroutine is to do.
type mode = int32

const (
	running  mode = iota
	pausing       // finish what was taken, take no more
	stopping      // the same, and end
)

// queue serves one virtqueue. What is not marked otherwise belongs to its goroutine
// from start to stop.
type queue struct {
	dev      *Device
	counters counters

	vq       *virtio.Queue
	host     virtio.Host
	io       block.Queue
	free     []*request
	inFlight int  // requests that the block queue has
	pushed   bool // something was given back since the guest was interrupted
	broken   bool // the driver broke the queue: nothing is taken until a reset

	held  *request  // taken, and waits for the limit
	until time.Time // when held may begin
	timer *time.Timer

	mode    atomic.Int32
	freed   atomic.Bool // the limit changed: held may begin
	serving sync.WaitGroup

	mu     sync.Mutex // guards what follows; no request takes it
	quiet  sync.Cond
	idle   bool // nothing is in flight, and nothing will be until mode is running
	paused bool
	kick   *virtio.Event // from start to stop
}

func newQueue(d *Device) *queue {
	w := &queue{dev: d}
	w.quiet.L = &w.mu
	return w
}

// open makes the block queue, whose completions signal kick. It is there over all
// starts.
func (w *queue) open(kick *virtio.Event) (err error) {
	w.io, err = block.NewQueue(w.dev.disk, block.QueueOptions{Depth: queueSize,
		Threads: max(1, threads/len(w.dev.queues)), EventFD: kick.FD()})
	return err
}

// close frees the block queue. The queue is stopped.
func (w *queue) close() {
	if w.io != nil {
		w.io.Close()
		w.io = nil
	}
}

// start begins to serve vq.
func (w *queue) start(vq *virtio.Queue, host virtio.Host) {
	w.vq, w.host = vq, host
	w.inFlight, w.pushed, w.broken, w.held = 0, false, false, nil
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Hour, w.wake)
		w.timer.Stop()
	}
	vq.Kick.Rearm()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kick, w.idle = vq.Kick, false
	w.mode.Store(running)
	if w.paused {
		w.mode.Store(pausing)
	}
	// The driver may have put requests in before it set DRIVER_OK.
	vq.Kick.Signal()
	w.serving.Go(w.serve)
}

// stop ends the work and returns when what was taken is given back. It does nothing
// when the queue was not started.
func (w *queue) stop() {
	w.mu.Lock()
	if w.kick == nil {
		w.mu.Unlock()
		return
	}
	w.mode.Store(stopping)
	w.kick.Signal()
	w.kick = nil
	w.mu.Unlock()
	w.serving.Wait()
	w.timer.Stop()
	w.vq, w.held = nil, nil
}

// pause returns when nothing is in flight; nothing is taken until resume.
func (w *queue) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = true
	if w.kick == nil {
		return
	}
	w.idle = false
	w.mode.Store(pausing)
	w.kick.Signal()
	for !w.idle {
		w.quiet.Wait()
	}
}

// resume ends a pause.
func (w *queue) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = false
	if w.kick != nil {
		w.mode.Store(running)
		w.kick.Signal()
	}
}

// wake makes the goroutine look again. A timer may fire when the event is no more.
func (w *queue) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kick != nil {
		w.kick.Signal()
	}
}

// unlimit lets a request that waits for the limit begin.
func (w *queue) unlimit() {
	w.freed.Store(true)
	w.wake()
}

func (w *queue) serve() {
	for w.vq.Kick.Wait() {
		if !w.work() {
			return
		}
	}
}

// work does all there is to do, and returns false when the queue is stopped. When it
// returns true, the next request of the guest and the next that is done signal.
func (w *queue) work() bool {
	w.vq.DisableKick()
	w.io.Disarm()
	for {
		busy := w.reap()
		mode := w.mode.Load()
		if mode == running {
			busy = w.take() || busy
		}
		w.io.Commit()
		w.interrupt()
		if busy {
			continue
		}
		if mode != running && w.inFlight == 0 {
			w.release()
			if mode == stopping {
				return false
			}
			w.tellIdle()
		}
		more := w.io.Arm()
		if mode == running && w.held == nil && !w.broken {
			more = w.vq.EnableKick() || more
		}
		if !more {
			return true
		}
		w.vq.DisableKick()
		w.io.Disarm()
	}
}

func (w *queue) tellIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = true
	w.quiet.Broadcast()
}

// release puts a request that waits for the limit back into the available ring: a
// paused queue has nothing that is not in guest memory.
func (w *queue) release() {
	if w.held != nil {
		w.timer.Stop()
		w.vq.Unpop()
		w.free = append(w.free, w.held)
		w.held = nil
	}
}

// reap gives back what is done, and tells whether there was something.
func (w *queue) reap() bool {
	io := w.io.Done()
	if io == nil {
		return false
	}
	now := time.Now()
	for ; io != nil; io = w.io.Done() {
		r := io.Owner.(*request)
		if io.Err == nil && w.dev.more(r) {
			w.io.Submit(io)
			continue
		}
		w.inFlight--
		if r.kind == typeIn && io.Err == nil {
			r.filled = r.bytes
		}
		w.finish(r, io.Err, now)
	}
	return true
}

// finish gives a request back to the guest.
func (w *queue) finish(r *request, err error, now time.Time) {
	if r.status[0] = statusOf(err); err == nil {
		w.counters.count(r)
	} else if r.status[0] == statusIOError {
		w.counters.errors.Add(1)
		w.dev.fail(err)
	}
	w.counters.took(now.Sub(r.began))
	w.vq.Push(&r.chain, uint32(r.filled)+1)
	w.pushed = true
	w.free = append(w.free, r)
}

func (w *queue) interrupt() {
	if w.pushed {
		w.pushed = false
		if w.vq.NeedsInterrupt() {
			w.vq.Interrupt()
		}
	}
}

// take begins the requests that wait in the queue, and tells whether there were some.
func (w *queue) take() bool {
	if w.broken || !w.vq.Pending() && w.held == nil {
		return false
	}
	now := time.Now()
	began := false
	// Cleared before the limit is asked: a change after that is not missed.
	freed := w.freed.Swap(false)
	if r := w.held; r != nil {
		if left := w.until.Sub(now); !freed && left > 0 {
			// Set anew: on a host whose CPUs' clocks differ it may have fired early.
			w.timer.Reset(left)
			return false
		}
		w.held, began = nil, true
		w.begin(r, now)
	}
	for range batch {
		if w.inFlight == queueSize {
			break
		}
		r := w.get()
		ok, err := w.vq.Pop(&r.chain)
		if ok {
			err = r.parse()
		}
		if !ok || err != nil {
			w.free = append(w.free, r)
			if err != nil {
				w.broken = true
				w.host.NeedsReset(err)
			}
			return began
		}
		r.began = now
		if wait := w.dev.limiter.Take(uint64(r.bytes)); wait > 0 {
			w.hold(r, now, wait)
			return began
		}
		began = true
		w.begin(r, now)
	}
	return began
}

// hold keeps a request, and with it all behind it, until the limit lets it begin.
func (w *queue) hold(r *request, now time.Time, wait time.Duration) {
	w.counters.throttled.Add(1)
	w.held, w.until = r, now.Add(wait)
	w.timer.Reset(wait)
}

// begin hands a request to the block queue, or answers it.
func (w *queue) begin(r *request, now time.Time) {
	done, err := w.dev.prepare(r)
	if done || err != nil {
		w.finish(r, err, now)
		return
	}
	w.inFlight++
	w.io.Submit(&r.io)
}

// get returns a request to fill.
func (w *queue) get() *request {
	if n := len(w.free); n > 0 {
		r := w.free[n-1]
		w.free = w.free[:n-1]
		return r
	}
	r := &request{}
	r.io.Owner = r
	return r
}
