package quac100

import (
	"context"
	"slices"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Batch is a set of operations that are announced to the card together, with
// one doorbell and one wake-up for all. It is filled, started and waited for by
// one goroutine; buffers belong to the batch until Wait has returned. After
// Reset it is filled anew and needs no new memory.
//
// A batch takes at most a quarter of the ring at a time, so that it does not
// shut out other callers: Start announces that much, Wait the rest.
type Batch struct {
	c    *Card
	ops  []batched
	next int // first operation that is not announced
	from int // first that is not finished
	w    waiter
}

type batched struct {
	q   request
	s   *slot
	err error
}

// NewBatch makes an empty batch.
func (c *Card) NewBatch() *Batch {
	return &Batch{c: c, w: waiter{ready: make(chan struct{}, 1)}}
}

// Len is the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch, which must not be under way.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.next, b.from = b.ops[:0], 0, 0
}

func (b *Batch) add() *batched {
	b.ops = slices.Grow(b.ops, 1)[:len(b.ops)+1]
	o := &b.ops[len(b.ops)-1]
	*o = batched{}
	return o
}

// NOP adds Card.NOP.
func (b *Batch) NOP() { b.add().q.cmd.Opcode = regs.OpNOP }

// Echo adds Card.Echo.
func (b *Batch) Echo(src, dst []byte) {
	o := b.add()
	o.err = echo(&o.q, src, dst)
}

// KEMKeygen adds Card.KEMKeygen.
func (b *Batch) KEMKeygen(alg regs.Alg, seed, public, secret []byte) {
	o := b.add()
	o.q.dst1 = secret
	o.err = b.c.kemKeygen(&o.q, alg, seed, public)
}

// Encapsulate adds Card.Encapsulate.
func (b *Batch) Encapsulate(alg regs.Alg, key Key, seed, ciphertext, shared []byte) {
	o := b.add()
	o.err = b.c.encapsulate(&o.q, alg, key, seed, ciphertext, shared)
}

// Decapsulate adds Card.Decapsulate.
func (b *Batch) Decapsulate(alg regs.Alg, key Key, ciphertext, shared []byte) {
	o := b.add()
	o.err = b.c.decapsulate(&o.q, alg, key, ciphertext, shared)
}

// SignKeygen adds Card.SignKeygen.
func (b *Batch) SignKeygen(alg regs.Alg, seed, public, secret []byte) {
	o := b.add()
	o.q.dst1 = secret
	o.err = b.c.signKeygen(&o.q, alg, seed, public)
}

// Sign adds Card.Sign.
func (b *Batch) Sign(alg regs.Alg, key Key, opts SignOptions, message, signature []byte) {
	o := b.add()
	o.err = b.c.sign(&o.q, alg, key, opts, message, signature)
}

// Verify adds Card.Verify.
func (b *Batch) Verify(alg regs.Alg, key Key, opts SignOptions, message, signature []byte) {
	o := b.add()
	o.err = b.c.verify(&o.q, alg, key, opts, message, signature)
}

// EncryptGCM adds Card.EncryptGCM.
func (b *Batch) EncryptGCM(key Key, nonce, aad, plaintext, dst []byte) {
	o := b.add()
	o.err = b.c.encryptGCM(&o.q, key, nonce, aad, plaintext, dst)
}

// DecryptGCM adds Card.DecryptGCM.
func (b *Batch) DecryptGCM(key Key, nonce, aad, ciphertext, dst []byte) {
	o := b.add()
	o.err = b.c.decryptGCM(&o.q, key, nonce, aad, ciphertext, dst)
}

// Random adds Card.Random of at most 1 MiB.
func (b *Batch) Random(p []byte) {
	o := b.add()
	o.q.cmd.Opcode, o.q.dst0 = regs.OpQRNGRead, p
}

// Start announces the first operations and returns; Wait must follow.
func (b *Batch) Start(ctx context.Context) { b.announce(ctx) }

// announce submits the next window and rings once.
func (b *Batch) announce(ctx context.Context) {
	window := max(1, len(b.c.ring.slots)/4)
	end := min(len(b.ops), b.next+window)
	b.w.pending.Store(1) // ours, until all are submitted
	for ; b.next < end; b.next++ {
		o := &b.ops[b.next]
		if o.err != nil {
			continue
		}
		if o.err = b.submit(ctx, o); o.err != nil {
			o.s = nil
		}
	}
	b.c.ring.ring()
	b.w.done()
}

func (b *Batch) submit(ctx context.Context, o *batched) (err error) {
	if f := b.c.failure.Load(); f != nil {
		return f.err
	}
	if !b.c.callers.enter() {
		return b.c.given()
	}
	defer func() {
		if err != nil {
			b.c.callers.leave() // else when its result is taken
		}
	}()
	select {
	case o.s = <-b.c.ring.free:
	default:
		b.c.ring.ring() // what waits for a place may wait for our own
		if o.s, err = b.c.ring.acquire(ctx); err != nil {
			return err
		}
	}
	if err = b.c.pool.place(ctx, o.s, &o.q); err == nil {
		o.s.wait = &b.w
		b.w.pending.Add(1)
		if err = b.c.ring.submit(o.s); err == nil {
			return nil
		}
		b.w.pending.Add(-1)
	}
	b.c.ring.release(o.s)
	return err
}

// Wait waits until everything is done and returns the first error; Err has
// that of each operation. When ctx ends, what the card has not answered by then
// is left to it and counts as Timeout.
func (b *Batch) Wait(ctx context.Context) error {
	for {
		b.finish(ctx)
		if b.next == len(b.ops) {
			break
		}
		b.announce(ctx)
	}
	for i := range b.ops {
		if err := b.ops[i].err; err != nil {
			return err
		}
	}
	return nil
}

// Run starts the batch and waits for it.
func (b *Batch) Run(ctx context.Context) error {
	b.Start(ctx)
	return b.Wait(ctx)
}

// Err is the error of operation i, in the order of adding, once Wait has
// returned.
func (b *Batch) Err(i int) error { return b.ops[i].err }

// finish takes the results of the window under way.
func (b *Batch) finish(ctx context.Context) {
	if b.from == b.next {
		return
	}
	select {
	case <-b.w.ready:
	case <-ctx.Done():
		b.leave(ctx)
	}
	for ; b.from < b.next; b.from++ {
		if o := &b.ops[b.from]; o.s != nil {
			o.err = b.c.take(o.s, &o.q)
			o.s = nil
			b.c.callers.leave()
		}
	}
}

// leave abandons what the card still has.
func (b *Batch) leave(ctx context.Context) {
	var left int32
	for i := b.from; i < b.next; i++ {
		o := &b.ops[i]
		if o.s == nil || !o.s.state.CompareAndSwap(slotBusy, slotAbandoned) {
			continue
		}
		b.c.stats.abandoned.Add(1)
		o.err = qverr.New(qverr.Timeout, "the card has not answered %s yet: %w", o.q.cmd.Opcode, ctx.Err())
		o.s = nil
		b.c.callers.leave()
		left++
	}
	if left == 0 || b.w.pending.Add(-left) > 0 {
		<-b.w.ready // the rest is here this moment
	}
}
