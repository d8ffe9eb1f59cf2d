package vfiouser_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/userbus"
	"quantavirt/quac100/vfiouser"
)

// The driver, the protocol and the model together, twice over one socket: all that QEMU adds is missing.
func TestDriverThroughTheProtocol(t *testing.T) {
	card, err := model.New(model.Config{HostMSIX: true, Serial: 99})
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	path := filepath.Join(t.TempDir(), "card.sock")
	l, err := vfiouser.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	served := make(chan error, 1)
	go func() { served <- vfiouser.Serve(ctx, l, card, slog.New(slog.DiscardHandler)) }()
	for range 2 {
		drive(ctx, t, path)
	}
	mixed(ctx, t, path, card)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func drive(ctx context.Context, t *testing.T, path string) {
	c, err := vfiouser.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := userbus.New(c)
	d, err := quac100.Open(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	var p, q [1 << 16]byte
	if err := d.Random(ctx, p[:]); err != nil {
		t.Error(err)
	}
	if err := d.Random(ctx, q[:]); err != nil || p == q {
		t.Errorf("random: %v", err)
	}
	for _, a := range []regs.Alg{regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024} {
		pk, sk, err := d.KEMGenerateKey(ctx, a)
		if err != nil {
			t.Fatal(err)
		}
		ct, k, err := d.KEMEncapsulate(ctx, a, pk)
		if err != nil {
			t.Fatal(err)
		}
		if k2, err := d.KEMDecapsulate(ctx, a, sk, ct); err != nil || !bytes.Equal(k, k2) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if failed, err := d.SelfTest(ctx, regs.TestsAll); err != nil || failed != 0 {
		t.Errorf("self-test: %v %v", failed.Names(), err)
	}
	if info, err := d.Info(ctx); err != nil || info.Serial != 99 {
		t.Errorf("info: %+v %v", info, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var p [64]byte
			for range 100 {
				if err := d.Random(ctx, p[:]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if n := b.Leaked(); n != 0 {
		t.Errorf("%d DMA buffers are left", n)
	}
}

// operations is how many mixed operations are done: all of the with QV_SOAK=1.
func operations() int64 {
	if os.Getenv("QV_SOAK") == "1" {
		return 100_000
	}
	return 2_000
}

// mixed does operations of every kind from 32 callers, checks each result, and breaks the card's DMA and its firmware on
// the way: what is in flight then fails with the card's codes, and nothing is ever wrong.
func mixed(ctx context.Context, t *testing.T, path string, card *model.Card) {
	c, err := vfiouser.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := userbus.New(c)
	d, err := quac100.Open(ctx, b, quac100.WithWatchdog(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	var left, failed atomic.Int64
	run := func(n int64) {
		left.Store(n)
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				w := newWorker(t, d, i)
				for left.Add(-1) >= 0 {
					if err := w.step(ctx); err != nil {
						failed.Add(1)
						if !quac100.IsFault(err) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		all.Wait()
	}
	run(operations())
	if n := failed.Load(); n > 0 {
		t.Errorf("%d operations failed without a fault", n)
	}
	var writes atomic.Int64
	card.FailDMA(func(write bool, _ uint64, n int) error {
		if write && n > 40 && writes.Add(1)%100 == 0 {
			return model.ErrUnmapped
		}
		return nil
	})
	run(operations() / 4)
	card.FailDMA(nil)
	if failed.Swap(0) == 0 {
		t.Error("no DMA fault was seen")
	}
	card.Hang(model.HangFLR)
	run(200)
	for limit := time.Now().Add(30 * time.Second); d.Stats().Recoveries == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the card does not come back")
		}
	}
	failed.Store(0)
	run(operations() / 4)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d operations failed after the recovery", n)
	}
	if s := d.Stats(); s.FunctionResets == 0 || s.InFlight != 0 {
		t.Errorf("after the hang: %+v", s)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if n := b.Leaked(); n != 0 {
		t.Errorf("%d DMA buffers are left", n)
	}
}

// worker has keys of its own and checks what the card makes of them.
type worker struct {
	t              *testing.T
	d              *quac100.Card
	n              int
	ek, dk, pk, sk []byte
	ct, k, k2, sig []byte
	text, out      []byte
}

func newWorker(t *testing.T, d *quac100.Card, i int) *worker {
	w := &worker{t: t, d: d, n: i, ek: make([]byte, 1184), dk: make([]byte, 2400), pk: make([]byte, 1312), sk: make([]byte, 2560),
		ct: make([]byte, 1088), k: make([]byte, 32), k2: make([]byte, 32), sig: make([]byte, 2420)}
	w.text = bytes.Repeat([]byte{byte(i), 7}, 50_000*(i%3)+100)
	w.out = make([]byte, len(w.text)+16)
	return w
}

// step does the next operation and its counterpart.
func (w *worker) step(ctx context.Context) (err error) {
	w.n++
	switch w.n % 5 {
	case 0:
		if err = w.d.KEMKeygen(ctx, regs.MLKEM768, nil, w.ek, w.dk); err == nil {
			err = w.d.Encapsulate(ctx, regs.MLKEM768, quac100.Inline(w.ek), nil, w.ct, w.k)
		}
		if err == nil {
			err = w.d.Decapsulate(ctx, regs.MLKEM768, quac100.Inline(w.dk), w.ct, w.k2)
		}
		w.check(err, bytes.Equal(w.k, w.k2), "shared keys")
	case 1:
		key := quac100.Inline(w.k2)
		clear(w.k2)
		if err = w.d.EncryptGCM(ctx, key, w.text[:12], nil, w.text, w.out); err == nil {
			err = w.d.DecryptGCM(ctx, key, w.text[:12], nil, w.out, w.out[:len(w.text)])
		}
		w.check(err, bytes.Equal(w.out[:len(w.text)], w.text), "plaintext")
	case 2:
		if err = w.d.SignKeygen(ctx, regs.MLDSA44, nil, w.pk, w.sk); err == nil {
			err = w.d.Sign(ctx, regs.MLDSA44, quac100.Inline(w.sk), quac100.SignOptions{}, w.text[:100], w.sig)
		}
		if err == nil {
			err = w.d.Verify(ctx, regs.MLDSA44, quac100.Inline(w.pk), quac100.SignOptions{}, w.text[:100], w.sig)
		}
	case 3:
		var h quac100.Handle
		if h, err = w.d.GenerateAESKey(ctx, nil); err == nil {
			err = w.d.DeleteKey(ctx, h)
		}
		if qverr.CodeOf(err) == qverr.PQCKeyNotFound {
			err = nil // a reset came between
		}
	default:
		clear(w.k)
		err = w.d.Random(ctx, w.k)
		w.check(err, !bytes.Equal(w.k, make([]byte, 32)), "randomness")
	}
	return err
}

func (w *worker) check(err error, good bool, what string) {
	if err == nil && !good {
		w.t.Errorf("wrong %s", what)
	}
}
