package quac100_test

import (
	"bytes"
	"context"
	"crypto/mlkem"
	"sync"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// plug makes a model and its bus.
func plug(t *testing.T, cfg model.Config) (*model.Card, *direct.Bus) {
	t.Helper()
	cfg.HostMSIX = true
	m, err := model.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, direct.New(m)
}

// open brings a card up and checks after the test that nothing is left behind.
func open(t *testing.T, cfg model.Config, opts ...quac100.Option) (*quac100.Card, *model.Card, *direct.Bus) {
	t.Helper()
	m, bus := plug(t, cfg)
	c, err := quac100.Open(t.Context(), bus, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if n := bus.Leaked(); n != 0 {
			t.Errorf("%d DMA buffers are left", n)
		}
	})
	return c, m, bus
}

func TestStatus(t *testing.T) {
	c, _, _ := open(t, model.Config{FWBuild: 77})
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Firmware != "1.0.0" || s.FirmwareBuild != 77 || s.Serial == "" || s.SelfTest != "passed" ||
		s.TempCore != 45000 || s.Health != "ok" || !s.QRNG.Ready || !s.QRNG.Healthy {
		t.Errorf("status: %+v", s)
	}
}

// Keys and ciphertexts of the card mean the same to the standard library.
func TestMLKEM768(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	public, secret, err := c.KEMGenerateKey(ctx, regs.MLKEM768)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := mlkem.NewEncapsulationKey768(public)
	if err != nil {
		t.Fatal(err)
	}
	want, ciphertext := ek.Encapsulate()
	got, err := c.KEMDecapsulate(ctx, regs.MLKEM768, secret, ciphertext)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("decapsulated %x, %v; want %x", got, err, want)
	}
	peer, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, shared, err := c.KEMEncapsulate(ctx, regs.MLKEM768, peer.EncapsulationKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := peer.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, shared) {
		t.Errorf("the peer decapsulates %x, %v; want %x", got, err, shared)
	}
}

// More callers than the ring and the buffers have room for: each gets its own
// answer.
func TestManyCallers(t *testing.T) {
	c, _, _ := open(t, model.Config{})
	const callers, rounds = 300, 5
	var all sync.WaitGroup
	seen := make(chan [16]byte, callers*rounds)
	for range callers {
		all.Go(func() {
			for range rounds {
				var p [16]byte
				if err := c.Random(context.Background(), p[:]); err != nil {
					t.Error(err)
					return
				}
				seen <- p
			}
		})
	}
	all.Wait()
	close(seen)
	unique := make(map[[16]byte]bool)
	for p := range seen {
		unique[p] = true
	}
	if len(unique) != callers*rounds {
		t.Errorf("%d different answers for %d calls", len(unique), callers*rounds)
	}
}

func TestRandomLong(t *testing.T) {
	c, _, _ := open(t, model.Config{})
	p := make([]byte, 10_000)
	if err := c.Random(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(p[:16], make([]byte, 16)) || bytes.Equal(p[len(p)-16:], make([]byte, 16)) {
		t.Error("an end of the buffer was not filled")
	}
}

// What the card refuses comes back with the catalogue's code, and the card
// goes on.
func TestRefused(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	public, secret, err := c.KEMGenerateKey(ctx, regs.MLKEM768)
	if err != nil {
		t.Fatal(err)
	}
	notReduced := bytes.Clone(public)
	copy(notReduced, []byte{0xFF, 0xFF, 0xFF})
	for _, tc := range []struct {
		name string
		call func() error
		want qverr.Code
	}{
		{"short key", func() error { _, _, err := c.KEMEncapsulate(ctx, regs.MLKEM768, public[1:]); return err }, qverr.Inval},
		{"key out of range", func() error { _, _, err := c.KEMEncapsulate(ctx, regs.MLKEM768, notReduced); return err }, qverr.PQCEncaps},
		{"short ciphertext", func() error { _, err := c.KEMDecapsulate(ctx, regs.MLKEM768, secret, []byte{1}); return err }, qverr.Inval},
		{"no KEM", func() error { _, _, err := c.KEMGenerateKey(ctx, regs.MLDSA44); return err }, qverr.PQCAlgorithm},
	} {
		if got := qverr.CodeOf(tc.call()); got != tc.want {
			t.Errorf("%s: code %d, want %d", tc.name, got, tc.want)
		}
	}
	if err := c.Random(ctx, make([]byte, 8)); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

func TestSelfTestFails(t *testing.T) {
	_, bus := plug(t, model.Config{FailSelfTest: regs.TestEncaps})
	_, err := quac100.Open(t.Context(), bus)
	if got := qverr.CodeOf(err); got != qverr.QUACSelfTest {
		t.Errorf("code %d (%v), want %d", got, err, qverr.QUACSelfTest)
	}
	if n := bus.Leaked(); n != 0 {
		t.Errorf("%d DMA buffers are left", n)
	}
}

func TestSelfTestOnDemand(t *testing.T) {
	c, _, _ := open(t, model.Config{})
	if failed, err := c.SelfTest(t.Context(), regs.TestsStartup); err != nil || failed != 0 {
		t.Errorf("failed %#x, %v", failed, err)
	}
}

func TestClosed(t *testing.T) {
	m, bus := plug(t, model.Config{})
	_ = m
	c, err := quac100.Open(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if got := qverr.CodeOf(c.Random(t.Context(), make([]byte, 8))); got != qverr.QUACNotFound {
		t.Errorf("code %d after Close, want %d", got, qverr.QUACNotFound)
	}
}

// A caller that gives up while the ring is full does not wait any longer.
func TestCancelledCaller(t *testing.T) {
	c, _, _ := open(t, model.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	for range 50 {
		err := c.Random(ctx, make([]byte, 8))
		if err != nil && qverr.CodeOf(err) != qverr.Timeout {
			t.Fatalf("%v", err)
		}
	}
	if err := c.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Error(err)
	}
}
