package pqc

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
	"quantavirt/quac100/userbus"
	"quantavirt/quac100/vfiouser"
)

func testSoftware(t testing.TB) *software {
	t.Helper()
	s, err := newSoftware(defaultEngines())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testCard is the driver on a model in this process.
func testCard(t testing.TB, cfg model.Config) (*cardProvider, *model.Card) {
	t.Helper()
	cfg.HostMSIX = true
	m, err := model.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	card, err := quac100.Open(t.Context(), direct.New(m))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	})
	return newCardProvider(testSoftware(t), card), m
}

// testServedCard is the driver on a model behind the vfio-user protocol.
func testServedCard(t *testing.T) *cardProvider {
	t.Helper()
	m, err := model.New(model.Config{HostMSIX: true})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "card.sock")
	l, err := vfiouser.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- vfiouser.Serve(ctx, l, m, slog.New(slog.DiscardHandler)) }()
	client, err := vfiouser.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	bus := userbus.New(client)
	card, err := quac100.Open(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(card.Close(), client.Close())
		stop()
		if err := errors.Join(err, <-served, m.Close()); err != nil {
			t.Error(err)
		}
		if n := bus.Leaked(); n != 0 {
			t.Errorf("%d DMA buffers are left", n)
		}
	})
	return newCardProvider(testSoftware(t), card)
}

// forProviders runs vectors on each provider that has an algorithm and prints
// how many there were.
func forProviders(t *testing.T, a Algorithm, run func(v *vectors)) {
	t.Run("software", func(t *testing.T) {
		v := &vectors{t, testSoftware(t), tally{}}
		run(v)
		v.count.report(t, "software")
	})
	t.Run("card", func(t *testing.T) {
		p := testServedCard(t)
		if !p.Supports(a) {
			t.Fatalf("the card has no %s", a)
		}
		v := &vectors{t, p, tally{}}
		run(v)
		v.count.report(t, "the card")
	})
}
