package virtio

import "sync"

// Worker serves one queue: it sleeps until the guest kicks, then takes requests
// until there are none. With a depth above 1, further goroutines help while
// requests wait, and end when none do: an idle queue costs one goroutine and no
// thread.
type Worker struct {
	// Handle does one request and returns how many bytes it wrote to the chain.
	Handle func(*Chain) (uint32, error)
	// Depth is how many requests are worked on at once; 0 means 1.
	Depth int

	queue *Queue
	host  Host

	mu     sync.Mutex // guards queue and active
	active int
	// gate is held for reading while guest memory is touched and for writing
	// while the device is paused.
	gate    sync.RWMutex
	wg      sync.WaitGroup
	stopped chan struct{}
}

// Start begins to serve q.
func (w *Worker) Start(q *Queue, host Host) {
	w.queue, w.host, w.stopped = q, host, make(chan struct{})
	q.Kick.Rearm()
	// The driver may have put requests in before it set DRIVER_OK.
	q.Kick.Signal()
	w.wg.Go(w.lead)
}

// Stop ends the work and returns when what was taken is given back. It does
// nothing when the worker was not started.
func (w *Worker) Stop() {
	if w.queue == nil {
		return
	}
	close(w.stopped)
	w.queue.Kick.Interrupt()
	w.wg.Wait()
	w.queue = nil
}

// Pause returns when no request is worked on; none is begun until Resume.
func (w *Worker) Pause() { w.gate.Lock() }

// Resume ends a Pause.
func (w *Worker) Resume() { w.gate.Unlock() }

// lead is the goroutine that waits for the guest.
func (w *Worker) lead() {
	for w.queue.Kick.Wait() {
		w.locked(w.queue.DisableKick)
		for {
			if !w.drain() {
				return
			}
			if !w.moreAfterEnable() {
				break
			}
		}
	}
}

func (w *Worker) locked(f func()) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *Worker) moreAfterEnable() (more bool) {
	w.locked(func() {
		if more = w.queue.EnableKick(); more {
			w.queue.DisableKick()
		}
	})
	return more
}

// drain works until the queue is empty. It returns false when there is nothing
// more to do for this worker: it was stopped, or the queue is broken.
func (w *Worker) drain() bool {
	var c Chain
	for {
		select {
		case <-w.stopped:
			return false
		default:
		}
		more, err := w.one(&c)
		if err != nil {
			w.host.NeedsReset(err)
			return false
		}
		if !more {
			return true
		}
	}
}

// one does one request.
func (w *Worker) one(c *Chain) (bool, error) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	w.mu.Lock()
	ok, err := w.queue.Pop(c)
	if ok {
		w.help()
	}
	w.mu.Unlock()
	if !ok || err != nil {
		return false, err
	}
	n, err := w.Handle(c)
	if err != nil {
		return false, err
	}
	w.mu.Lock()
	w.queue.Push(c, n)
	interrupt := w.queue.NeedsInterrupt()
	w.mu.Unlock()
	if interrupt {
		w.queue.Interrupt()
	}
	return true, nil
}

// help starts another goroutine if a request waits and one more may run. The
// lock is held.
func (w *Worker) help() {
	if w.active+1 >= w.Depth || !w.queue.Pending() {
		return
	}
	w.active++
	w.wg.Go(func() {
		w.drain()
		w.mu.Lock()
		w.active--
		w.mu.Unlock()
	})
}
