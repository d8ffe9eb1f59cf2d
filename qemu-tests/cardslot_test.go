package qemutests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

// served is who answers, and the longest that a caller waited since it was asked last.
type served struct {
	by      [2]atomic.Int64 // software, card
	longest atomic.Int64    // nanoseconds
}

func (s *served) take(provider string, took time.Duration) {
	if provider == "quac100" {
		s.by[1].Add(1)
	} else {
		s.by[0].Add(1)
	}
	for old := s.longest.Load(); int64(took) > old && !s.longest.CompareAndSwap(old, int64(took)); old = s.longest.Load() {
	}
}

// drawRandomness asks for random bytes over one connection until ctx ends.
func drawRandomness(ctx context.Context, n *lab.Node, s *served) error {
	client := n.Client()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, n.URL+"/api/v1/crypto/qrng/random?bytes=64", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+n.Token)
		started := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		var out struct {
			Provider string `json:"provider"`
			Data     []byte `json:"data"`
		}
		err = json.NewDecoder(resp.Body).Decode(&out)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(out.Data) != 64 {
			return fmt.Errorf("%s, %d bytes, %w", resp.Status, len(out.Data), err)
		}
		s.take(out.Provider, time.Since(started))
	}
	return nil
}

// A card that is put in while the node runs is bound and serves; it stops answering under
// callers and is back, again and again: no call fails, and the card serves again.
func TestCardComesAndGoes(t *testing.T) {
	if !soaking() {
		t.Skip("under soak: the same in the process, by pqc's TestRemovalUnderLoad, is in every run")
	}
	n := boot(t, lab.Options{Name: "comes", Memory: 3072, DataDisk: 256, Card: true, Slot: true})
	settled(t, n)
	if s := info(t, n); len(s.Cards) != 0 || s.CryptoProvider != "software" {
		t.Fatalf("an empty slot: %+v, %s", s.Cards, s.CryptoProvider)
	}
	events, err := n.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = events.Close() }()
	ctx, stop := context.WithCancel(t.Context())
	var s served
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	for range 8 {
		callers.Go(func() {
			if err := drawRandomness(ctx, n, &s); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "software serves", func() bool { return s.by[0].Load() > 50 })
	if err := n.PutCard(events); err != nil {
		t.Fatal(err)
	}
	put := time.Now()
	until(t, "the card that was put in serves", func() bool { return s.by[1].Load() > 0 })
	t.Logf("the card served %.1f s after it was put in", time.Since(put).Seconds())
	if is := info(t, n); len(is.Cards) != 1 || !is.Cards[0].Bound || is.Cards[0].SelfTest != "passed" || is.Cards[0].Serial == "" {
		t.Errorf("cards: %+v", is.Cards)
	}
	for range 5 {
		card := s.by[1].Load()
		until(t, "the card serves", func() bool { return s.by[1].Load() > card+100 })
		s.longest.Store(0)
		pulled := time.Now()
		if err := n.BreakCard(ctx, `{"present":false}`); err != nil {
			t.Fatal(err)
		}
		soft := s.by[0].Load()
		until(t, "software serves", func() bool { return s.by[0].Load() > soft+50 })
		t.Logf("50 calls were served by software %.1f s after the card was gone; the longest call took %s",
			time.Since(pulled).Seconds(), time.Duration(s.longest.Load()))
		if longest := time.Duration(s.longest.Load()); longest > 6*time.Second {
			t.Errorf("a caller waited %s", longest)
		}
		if err := n.BreakCard(ctx, `{"present":true}`); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		card = s.by[1].Load()
		until(t, "the card serves again", func() bool { return s.by[1].Load() > card })
		t.Logf("the card served %.1f s after it was back", time.Since(back).Seconds())
	}
}

// until waits for what a test has no event for.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * time.Minute); !done(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
