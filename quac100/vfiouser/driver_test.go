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

	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/userbus"
	"quantavirt/quac100/vfiouser"
	"quantavirt/quac100/workload"
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(operations())*10*time.Millisecond)
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
	d, err := quac100.Open(ctx, b, quac100.WithResetLimit(time.Minute))
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
func operations() int {
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
	d, err := quac100.Open(ctx, b, quac100.WithWatchdog(50*time.Millisecond),
		quac100.WithResetLimit(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	run := func(n int, faults, quick bool) int {
		t.Helper()
		r, err := workload.Load{Card: d, Callers: 32, Operations: n, Faults: faults, Quick: quick}.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		return r.Failed
	}
	run(operations(), false, false)
	if keys, err := d.ListKeys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("keys left: %v, %v", keys, err)
	}
	var writes atomic.Int64
	card.FailDMA(func(write bool, _ uint64, n int) error {
		if write && n > 40 && writes.Add(1)%100 == 0 {
			return model.ErrUnmapped
		}
		return nil
	})
	failed := run(operations()/4, true, true)
	card.FailDMA(nil)
	if failed == 0 {
		t.Error("no DMA fault was seen")
	}
	card.Hang(model.HangFLR)
	run(200, true, true)
	for limit := time.Now().Add(30 * time.Second); d.Stats().Recoveries == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the card does not come back")
		}
	}
	run(operations()/4, false, true)
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
