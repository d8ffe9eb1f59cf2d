package quac100_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// More operations than a window and than the ring, one of them wrong: each has
// its own result, and the batch serves again.
func TestBatch(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{}, quac100.WithRing(64))
	b := c.NewBatch()
	for round := range 3 {
		b.Reset()
		const n = 200
		var src, dst [n][]byte
		for i := range n {
			src[i], dst[i] = seeded(string(rune('a'+i)), 1+i*40), make([]byte, 1+i*40)
			if i == 100 {
				b.Echo(src[i], dst[i][1:])
				continue
			}
			b.Echo(src[i], dst[i])
		}
		if got := qverr.CodeOf(b.Run(ctx)); got != qverr.Inval {
			t.Errorf("round %d: code %d for the wrong one", round, got)
		}
		for i := range n {
			if i == 100 {
				continue
			}
			if err := b.Err(i); err != nil || !bytes.Equal(src[i], dst[i]) {
				t.Errorf("round %d, operation %d: %v", round, i, err)
			}
		}
	}
	if s := c.Stats(); s.InFlight != 0 || s.Doorbells >= s.OK {
		t.Errorf("%d in flight; %d doorbells for %d operations", s.InFlight, s.Doorbells, s.OK)
	}
}

func TestBatchOfEverything(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	b := c.NewBatch()
	ek, dk := make([]byte, 1184), make([]byte, 2400)
	pk, sk := make([]byte, 1312), make([]byte, 2560)
	b.NOP()
	b.KEMKeygen(regs.MLKEM768, nil, ek, dk)
	b.SignKeygen(regs.MLDSA44, nil, pk, sk)
	p := make([]byte, 32)
	b.Random(p)
	if err := b.Run(ctx); err != nil || b.Len() != 4 {
		t.Fatal(err)
	}
	ct, k, sig := make([]byte, 1088), make([]byte, 32), make([]byte, 2420)
	sealed, nonce := make([]byte, 21), make([]byte, 12)
	b.Reset()
	b.Encapsulate(regs.MLKEM768, quac100.Inline(ek), nil, ct, k)
	b.Sign(regs.MLDSA44, quac100.Inline(sk), quac100.SignOptions{}, []byte("m"), sig)
	b.EncryptGCM(quac100.Inline(p), nonce, nil, []byte("hello"), sealed)
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	got, text := make([]byte, 32), make([]byte, 5)
	b.Reset()
	b.Decapsulate(regs.MLKEM768, quac100.Inline(dk), ct, got)
	b.Verify(regs.MLDSA44, quac100.Inline(pk), quac100.SignOptions{}, []byte("m"), sig)
	b.DecryptGCM(quac100.Inline(p), nonce, nil, sealed, text)
	if err := b.Run(ctx); err != nil || !bytes.Equal(got, k) || string(text) != "hello" {
		t.Errorf("%v, %x, %q", err, got, text)
	}
}

// A batch that is left early gives its memory back once the card has answered.
func TestBatchLeft(t *testing.T) {
	c, m, _ := open(t, model.Config{})
	release := make(chan struct{})
	m.SetLatency(func(op regs.Opcode) time.Duration {
		if op == regs.OpEcho {
			<-release
		}
		return 0
	})
	b := c.NewBatch()
	buf := make([]byte, 100)
	for range 5 {
		b.Echo(buf, buf)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.Start(ctx)
	cancel()
	if got := qverr.CodeOf(b.Wait(ctx)); got != qverr.Timeout {
		t.Errorf("code %d, want a time-out", got)
	}
	close(release)
	if err := c.NOP(t.Context(), true); err != nil { // a fence: the others have answered
		t.Fatal(err)
	}
	if s := c.Stats(); s.InFlight != 0 || s.Abandoned == 0 {
		t.Errorf("%d in flight, %d abandoned", s.InFlight, s.Abandoned)
	}
}

// One caller with batches without end does not shut out another: while that one
// does its operations one by one, at most so many of the batch's go by for each.
func TestFair(t *testing.T) {
	c, m, _ := open(t, model.Config{Workers: 2}, quac100.WithRing(64))
	m.SetLatency(func(regs.Opcode) time.Duration { return 100 * time.Microsecond })
	var hungry atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			b := c.NewBatch()
			for {
				select {
				case <-stop:
					return
				default:
				}
				b.Reset()
				for range 1000 {
					b.NOP()
				}
				if err := b.Run(context.Background()); err != nil {
					t.Error(err)
					return
				}
				hungry.Add(1000)
			}
		})
	}
	const modest = 20
	before := c.Stats().OK
	for range modest {
		if err := c.Echo(t.Context(), []byte{1}, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	passed := c.Stats().OK - before
	close(stop)
	all.Wait()
	// A place in the queue: at most a ring full of others before it, and one in flight before it.
	if limit := uint64(modest * 2 * 64); passed > limit {
		t.Errorf("%d operations went by for %d of the modest caller, at most %d should", passed, modest, limit)
	}
	t.Logf("%d operations for %d", passed, modest)
}

// More callers than may wait: the rest is told so at once.
func TestRingFull(t *testing.T) {
	c, m, _ := open(t, model.Config{}, quac100.WithRing(16), quac100.WithMaxWaiting(4))
	release := make(chan struct{})
	m.SetLatency(func(regs.Opcode) time.Duration { <-release; return 0 })
	codes := make(chan qverr.Code, 40)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() { codes <- qverr.CodeOf(c.NOP(context.Background(), false)) })
	}
	full := 0
	for full < 40-15-4 { // these come back while all others hang
		if got := <-codes; got != qverr.QUACRingFull {
			t.Fatalf("code %d, want %d", got, qverr.QUACRingFull)
		}
		provokes(qverr.QUACRingFull)
		full++
	}
	close(release)
	all.Wait()
	close(codes)
	for got := range codes {
		if got != qverr.Success {
			t.Errorf("code %d for one that had a place", got)
		}
	}
}

// Each way of noticing responses gives the same results.
func TestCompletions(t *testing.T) {
	for _, mode := range []quac100.Completion{quac100.Adaptive, quac100.Interrupts, quac100.Polling} {
		c, _, _ := open(t, model.Config{}, quac100.WithCompletion(mode))
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for i := range 100 {
					src, dst := seeded("x", 1+i), make([]byte, 1+i)
					if err := c.Echo(t.Context(), src, dst); err != nil || !bytes.Equal(src, dst) {
						t.Errorf("mode %d: %v", mode, err)
						return
					}
				}
			})
		}
		all.Wait()
		if s := c.Stats(); s.LostInterrupts != 0 {
			t.Errorf("mode %d: %d interrupts count as lost", mode, s.LostInterrupts)
		}
	}
}
