package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// fetchBatch bounds the entries read at once.
const fetchBatch = 64

// fetchable is the number of entries that can be fetched in one piece now.
func (c *Card) fetchable() int {
	q := &c.queue
	if !c.mayFetch() || q.halted != regs.HaltNone || c.faults.hang != HangNone {
		return 0
	}
	head, tail, size := c.get(regs.CMDQHead), c.get(regs.CMDQTail), c.get(regs.CMDQSize)
	n := int((tail - head) % size)
	n = min(n, int(size-head), int(c.get(regs.CMDQMaxInflight))-q.inflight, fetchBatch)
	return max(n, 0)
}

// fetchLoop reads command entries into the card, in order.
func (c *Card) fetchLoop() {
	c.lock()
	defer c.unlock()
	var buf [fetchBatch * regs.CommandSize]byte
	for !c.stop {
		n := c.fetchable()
		if n == 0 {
			c.wait(c.fetchC)
			continue
		}
		c.fetch(buf[:n*regs.CommandSize])
	}
}

// fetch reads the entries that fill buf from the ring; called with the lock, which it gives up meanwhile.
func (c *Card) fetch(buf []byte) {
	q := &c.queue
	head, size := c.get(regs.CMDQHead), c.get(regs.CMDQSize)
	addr := c.get64(regs.CMDQBaseLo) + uint64(head)*regs.CommandSize
	gen, mark := c.gen, q.fetching
	err := c.transfer(&access{gen: gen, iova: addr, data: buf})
	if c.gen != gen || q.fetching != mark || !c.enabled(regs.CMDQCtrl) {
		return
	}
	if err != nil {
		c.set(regs.CMDQErr, c.get(regs.CMDQErr)|regs.CMDQErrFetchFault)
		c.halt(regs.HaltFetch)
		c.fail(regs.ErrCMDQ, uint16(regs.CMDQHead), regs.DetailSrcFault, addr)
		c.raise(regs.CauseCMDQHalt, regs.CauseDMAError)
		return
	}
	now := time.Now()
	for ; len(buf) > 0; buf = buf[regs.CommandSize:] {
		entry, err := regs.ParseCommand(buf)
		if err != nil {
			panic(err) // buf holds whole entries
		}
		q.pending = append(q.pending, &command{Command: entry, op: c.ops[entry.Opcode], gen: gen, fetched: now, cancel: make(chan struct{})})
		head = (head + 1) % size
		if q.inflight++; q.inflight == 1 {
			q.busyFrom = now
		}
		c.set(regs.CMDQFetched, c.get(regs.CMDQFetched)+1)
	}
	c.perf.depthMax = max(c.perf.depthMax, uint32(q.inflight))
	c.set(regs.CMDQHead, head)
	c.schedule()
}

// schedule starts what may start: everything in order, and nothing across a fence.
func (c *Card) schedule() {
	q := &c.queue
	for len(q.pending) > 0 && q.fence == nil {
		m := q.pending[0]
		if m.fence() {
			if q.inflight > len(q.pending) {
				return
			}
			q.fence = m
		}
		q.pending = q.pending[1:]
		q.jobs = append(q.jobs, m)
		c.jobC.Signal()
	}
}

// workLoop executes commands.
func (c *Card) workLoop() {
	c.lock()
	defer c.unlock()
	for !c.stop {
		if len(c.queue.jobs) == 0 {
			c.wait(c.jobC)
			continue
		}
		m := c.queue.jobs[0]
		c.queue.jobs = c.queue.jobs[1:]
		m.state = cmdRunning
		c.queue.running[m] = struct{}{}
		limit := time.Duration(c.get(regs.CMDQTimeoutMS)) * time.Millisecond
		m.timer = time.AfterFunc(limit, func() { c.expire(m) })
		c.unlock()
		resp := c.execute(m)
		c.finish(m, resp)
		c.post()
		c.lock()
	}
}

// expire answers a command that took too long; its late result is thrown away.
func (c *Card) expire(m *command) {
	c.lock()
	defer c.unlock()
	if m.state == cmdRunning {
		c.answer(m, regs.Response{Status: regs.RespTimeout})
		c.postC.Signal()
	}
}

// claim makes a command's result count: from here on it can no longer time out or be aborted.
func (c *Card) claim(m *command) bool {
	c.lock()
	defer c.unlock()
	if m.state != cmdRunning {
		return false
	}
	m.state = cmdWriting
	return true
}

func (c *Card) finish(m *command, r regs.Response) {
	c.lock()
	defer c.unlock()
	if m.state == cmdRunning || m.state == cmdWriting {
		c.answer(m, r)
	}
}

// answer turns a command into a result that waits to be posted.
func (c *Card) answer(m *command, r regs.Response) {
	c.retire(m)
	r.Tag, r.Opcode = m.Tag, m.Opcode
	r.LatencyNS = uint32(min(time.Since(m.fetched).Nanoseconds(), int64(^uint32(0))))
	c.queue.results = append(c.queue.results, &result{m, r})
}

func (c *Card) retire(m *command) {
	if m.state != cmdAnswered {
		m.state = cmdAnswered
		close(m.cancel)
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	delete(c.queue.running, m)
}

// abort answers every command whose result does not count yet, and stops fetching.
func (c *Card) abort() {
	q := &c.queue
	c.set(regs.CMDQCtrl, 0)
	q.fetching++
	aborted := append(append([]*command{}, q.jobs...), q.pending...)
	for m := range q.running {
		if m.state == cmdRunning {
			aborted = append(aborted, m)
		}
	}
	q.jobs, q.pending = nil, nil
	for _, m := range aborted {
		c.answer(m, regs.Response{Status: regs.RespTimeout, Detail: regs.DetailAborted})
	}
	if len(aborted) > 0 {
		c.postC.Signal()
	}
}

// dropAll forgets every command without an answer. What they still do writes nothing any more once dma.busy is 0.
func (c *Card) dropAll() {
	q := &c.queue
	c.gen++
	q.fetching++
	for m := range q.running {
		c.retire(m)
	}
	for _, m := range append(q.jobs, q.pending...) {
		c.retire(m)
	}
	q.jobs, q.pending, q.results, q.fence = nil, nil, nil, nil
	c.landed(q.inflight)
	c.stall(false)
	c.wakeAll()
}

// landed takes n commands out of flight, and accounts for the time with work in flight when it ends.
func (c *Card) landed(n int) {
	if n == 0 {
		return
	}
	if c.queue.inflight -= n; c.queue.inflight == 0 {
		c.perf.busy += time.Since(c.queue.busyFrom)
	}
}

// stall notes that the response ring became full, or is no longer.
func (c *Card) stall(on bool) {
	q := &c.queue
	if q.stalled == on {
		return
	}
	q.stalled = on
	if !on {
		c.perf.stall += time.Since(q.stallFrom)
		return
	}
	q.stallFrom = time.Now()
	c.set(regs.RSPQStalls, c.get(regs.RSPQStalls)+1)
	c.raise(regs.CauseRSPQFull)
}

// wakeAll lets every waiting part of the card look again.
func (c *Card) wakeAll() {
	c.fetchC.Broadcast()
	c.jobC.Broadcast()
	c.postC.Broadcast()
	c.progress.Broadcast()
}
