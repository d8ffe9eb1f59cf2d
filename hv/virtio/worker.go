package virtio

import "sync"

// Worker serves one queue: it sleeps until the guest kicks, then takes requests
// until there are none. With a depth above 1, requests are worked on by goroutines
// that come as requests do and go when there are no more. An idle queue costs one
// goroutine and no thread.
type Worker struct {
	// Handle does one request and returns how many bytes it wrote to the chain. An
	// error stops the device until it is reset.
	Handle func(*Chain) (uint32, error)
	// Depth is how many requests are worked on at once; 0 means 1.
	Depth int
	// Ready tells whether Handle has something for the guest; nil means always. It
	// is for queues that bring data in: whoever makes it true calls Wake.
	Ready func() bool

	host Host
	wg   sync.WaitGroup

	// wake guards running, the queue from Start to Stop: the event of a queue that is no
	// more may be somebody else's descriptor. It is held for nothing else, as Wake is
	// called with other locks held.
	wake    sync.Mutex
	running *Queue

	mu       sync.Mutex // guards all below, and the queue
	changed  sync.Cond  // paused, stopping or inFlight
	queue    *Queue
	paused   bool
	stopping bool
	inFlight int // requests taken and not given back
	helpers  int
}

// Start begins to serve q.
func (w *Worker) Start(q *Queue, host Host) {
	w.mu.Lock()
	w.changed.L = &w.mu
	w.queue, w.host, w.stopping, w.inFlight, w.helpers = q, host, false, 0, 0
	w.mu.Unlock()
	q.Kick.Rearm()
	// The driver may have put requests in before it set DRIVER_OK.
	q.Kick.Signal()
	w.wake.Lock()
	w.running = q
	w.wake.Unlock()
	w.wg.Go(func() { w.lead(q) })
}

// Stop ends the work and returns when what was taken is given back. It does
// nothing when the worker was not started.
func (w *Worker) Stop() {
	w.wake.Lock()
	q := w.running
	w.running = nil
	w.wake.Unlock()
	if q == nil {
		return
	}
	w.mu.Lock()
	w.stopping = true
	w.changed.Broadcast()
	w.mu.Unlock()
	q.Kick.Interrupt()
	w.wg.Wait()
}

// Wake makes a started worker look again.
func (w *Worker) Wake() {
	w.wake.Lock()
	defer w.wake.Unlock()
	if w.running != nil {
		w.running.Kick.Signal()
	}
}

// Pause returns when no request is worked on; none is begun until Resume.
func (w *Worker) Pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.L = &w.mu
	w.paused = true
	for w.inFlight > 0 {
		w.changed.Wait()
	}
}

// Resume ends a Pause.
func (w *Worker) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = false
	if w.changed.L != nil {
		w.changed.Broadcast()
	}
}

// mayWork waits while the worker is paused, and tells whether to go on. The lock
// is held.
func (w *Worker) mayWork() bool {
	for w.paused && !w.stopping {
		w.changed.Wait()
	}
	return !w.stopping
}

func (w *Worker) ready() bool { return w.Ready == nil || w.Ready() }

// lead is the goroutine that waits for the guest.
func (w *Worker) lead(q *Queue) {
	var c Chain // kept from one kick to the next, for its slices
	for q.Kick.Wait() {
		if w.Depth > 1 && !w.dispatch() || w.Depth <= 1 && !w.exhaust(&c) {
			return
		}
	}
}

// dispatch finds somebody for what waits. It returns false when there is nothing
// more to do for this worker.
func (w *Worker) dispatch() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.mayWork() {
		return false
	}
	w.callHelp()
	return true
}

// callHelp starts a goroutine if a request waits and one more may run; otherwise
// it makes sure that the guest kicks for the next request. The lock is held.
func (w *Worker) callHelp() {
	if w.queue.EnableKick() && w.helpers < w.Depth {
		w.helpers++
		w.wg.Go(func() { w.drain(&Chain{}) })
	}
}

// exhaust works until the queue is empty and the guest will say when it is not.
// It returns false when there is nothing more to do for this worker.
func (w *Worker) exhaust(c *Chain) bool {
	for {
		w.mu.Lock()
		ok := w.mayWork()
		if ok {
			w.queue.DisableKick()
		}
		w.mu.Unlock()
		if !ok || !w.drain(c) {
			return false
		}
		w.mu.Lock()
		ok = w.mayWork()
		more := ok && w.queue.EnableKick() && w.ready()
		w.mu.Unlock()
		if !more {
			return ok
		}
	}
}

// drain takes requests until there are none. It returns false when the worker
// was stopped or the driver broke the queue.
func (w *Worker) drain(c *Chain) bool {
	for {
		more, err := w.one(c)
		if err != nil {
			w.mu.Lock()
			stopped := w.stopping
			w.stopping = true // the helpers need not find out by themselves
			w.mu.Unlock()
			if !stopped {
				w.host.NeedsReset(err)
			}
			return false
		}
		if !more {
			// Not deferred: in a loop that would be an allocation.
			w.mu.Lock()
			stopped := w.stopping
			w.mu.Unlock()
			return !stopped
		}
	}
}

// one does one request.
func (w *Worker) one(c *Chain) (bool, error) {
	if ok, err := w.take(c); !ok || err != nil {
		return false, err
	}
	n, err := w.Handle(c)
	w.mu.Lock()
	interrupt := false
	if err == nil {
		w.queue.Push(c, n)
		interrupt = w.queue.NeedsInterrupt()
	}
	if w.inFlight--; w.inFlight == 0 {
		w.changed.Broadcast()
	}
	w.mu.Unlock()
	if interrupt {
		w.queue.Interrupt()
	}
	return true, err
}

// take pops a request. When there is none, a helper is done.
func (w *Worker) take(c *Chain) (taken bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mayWork() && w.ready() {
		taken, err = w.queue.Pop(c)
	}
	switch {
	case taken:
		w.inFlight++
		if w.Depth > 1 {
			w.callHelp()
		}
	case w.Depth > 1:
		// Counted under the same lock as the look at the queue: whoever sees a
		// request later also sees that there is room for a helper.
		w.helpers--
	}
	return taken, err
}
