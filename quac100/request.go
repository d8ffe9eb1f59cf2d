package quac100

import (
	"context"

	"quantavirt/quac100/regs"
)

// request is one command with the caller's buffers. Sources may have several
// pieces, which go to the card one after the other. It lives on the caller's
// stack: nothing keeps a pointer to it.
type request struct {
	cmd        regs.Command
	src0, src1 [3][]byte
	dst0, dst1 []byte
	rsp        regs.Response
	own        bool // of the driver itself, while the card takes no other work
}

// seed lets the caller supply the randomness of a key generation.
func (q *request) seed(seed []byte) {
	if seed != nil {
		q.cmd.Flags |= regs.FlagSeed
		q.src0[0] = seed
	}
}

func pieces(p *[3][]byte) int { return len(p[0]) + len(p[1]) + len(p[2]) }

// variable reports whether success may fill less than all of the output.
func (q *request) variable() bool {
	return q.cmd.Opcode == regs.OpKeyExport || q.cmd.Opcode == regs.OpKeyList
}

// run does one command and turns its response into an error. Errors of every
// command: Timeout when ctx ends first, QUACRingFull, QUACDMA, QUACWatchdog,
// QUACNotFound, QUACSelfTest, QUACOvertemp, and what the catalogue makes of the
// card's answer, with a ResponseError in the chain. A caller that leaves early
// takes no buffer along: the card works on memory of the driver's own.
func (c *Card) run(ctx context.Context, q *request) error {
	if f := c.failure.Load(); f != nil && !q.own {
		return f.err
	}
	if !c.callers.enter() {
		return c.given()
	}
	defer c.callers.leave()
	s, err := c.ring.acquire(ctx)
	if err != nil {
		return err
	}
	if err := c.pool.place(ctx, s, q); err != nil {
		c.ring.release(s)
		return err
	}
	s.wait = &s.own
	s.own.pending.Store(1)
	if err := c.ring.submit(s); err != nil {
		c.ring.release(s)
		return err
	}
	c.ring.ring()
	return c.finish(ctx, s, q)
}

// finish waits for the response of a submitted slot and takes what it brings.
func (c *Card) finish(ctx context.Context, s *slot, q *request) error {
	if err := c.ring.await(ctx, s); err != nil {
		return err
	}
	return c.take(s, q)
}

// take is what the response of a slot comes to; the slot goes back.
func (c *Card) take(s *slot, q *request) error {
	if err := s.err; err != nil {
		c.ring.retire(s)
		return err
	}
	q.rsp = s.rsp
	err := c.result(s, q)
	if err == nil {
		c.pool.collect(s, q)
	}
	c.ring.retire(s)
	return err
}
