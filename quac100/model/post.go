package model

import (
	"quantavirt/quac100/regs"
)

// postLoop posts results when no worker is there to do it: after a time-out, an abort, or a stall.
func (c *Card) postLoop() {
	c.lock()
	defer c.unlock()
	for !c.stop {
		if !c.canPost() {
			c.wait(c.postC)
			continue
		}
		c.postAll()
	}
}

// post posts what is finished, unless somebody is at it already.
func (c *Card) post() {
	c.lock()
	defer c.unlock()
	c.postAll()
}

func (c *Card) canPost() bool {
	return !c.queue.posting && len(c.queue.results) > 0 && c.enabled(regs.RSPQCtrl) && !c.queue.rspHalted && !c.rspqFull()
}

// postAll writes results to the response ring, one after the other; called with the lock, which it gives up meanwhile.
func (c *Card) postAll() {
	q := &c.queue
	for c.canPost() {
		q.posting = true
		r := q.results[0]
		q.results = q.results[1:]
		c.postOne(r)
		q.posting = false
	}
	c.stall(len(q.results) > 0 && c.rspqFull())
}

// postOne writes one response: 28 bytes first, then the dword that makes it valid, then the event.
func (c *Card) postOne(r *result) {
	q := &c.queue
	at, size := q.reserved, c.get(regs.RSPQSize)
	q.reserved = (at + 1) % size
	r.resp.SQHead = uint16(c.get(regs.CMDQHead))
	if q.phase {
		r.resp.Flags |= regs.RespPhase
	}
	if q.reserved == 0 {
		q.phase = !q.phase
	}
	c.count(r)
	gen := c.gen
	addr := c.get64(regs.RSPQBaseLo) + uint64(at)*regs.ResponseSize
	var entry [regs.ResponseSize]byte
	shown := c.damaged(r.resp)
	shown.Put(entry[:])
	err := c.transfer(&access{gen: gen, write: true, iova: addr, tag: r.cmd.Tag, data: entry[:regs.ResponseTail]})
	if err == nil {
		err = c.transfer(&access{gen: gen, write: true, iova: addr + regs.ResponseTail, tag: r.cmd.Tag, data: entry[regs.ResponseTail:]})
	}
	if c.gen != gen {
		return
	}
	if err != nil {
		c.postFault(addr)
		return
	}
	c.set(regs.RSPQTail, q.reserved)
	c.landed(1)
	if q.fence == r.cmd {
		q.fence = nil
	}
	if r.cmd.Flags&regs.FlagIRQ != 0 {
		c.responded(r.resp.Status)
	}
	if q.inflight == 0 && c.get(regs.CMDQHead) == c.get(regs.CMDQTail) {
		c.raise(regs.CauseCMDQEmpty)
	}
	c.schedule()
	c.fetchC.Signal()
	c.progress.Broadcast()
}

// postFault halts both rings; everything in flight is lost.
func (c *Card) postFault(addr uint64) {
	c.set(regs.RSPQErr, c.get(regs.RSPQErr)|regs.RSPQErrWriteFault)
	c.dropAll()
	c.queue.rspHalted = true
	c.halt(regs.HaltWrite)
	c.fail(regs.ErrRSPQ, uint16(regs.RSPQTail), regs.DetailDstFault, addr)
	c.raise(regs.CauseCMDQHalt, regs.CauseDMAError)
}

// count keeps the counters of a response that is about to be visible.
func (c *Card) count(r *result) {
	c.set(regs.CMDQDone, c.get(regs.CMDQDone)+1)
	c.set(regs.RSPQPosted, c.get(regs.RSPQPosted)+1)
	if r.resp.Status == regs.RespSuccess {
		c.add64(regs.OpsOKLo, 1)
	} else {
		c.add64(regs.OpsFailLo, 1)
	}
	c.perf.account(r, c.get(regs.PerfCtrl)&regs.PerfEnable != 0)
}
