package pqc

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
)

// fakeCard serves as the software does until it is told to fail.
type fakeCard struct {
	*software
	healthy error
	fail    error
}

func (f *fakeCard) Name() string   { return "quac100" }
func (f *fakeCard) Healthy() error { return f.healthy }
func (f *fakeCard) Close() error   { return nil }
func (f *fakeCard) Status(context.Context) (quac100.Status, error) {
	return quac100.Status{Serial: "fake"}, nil
}
func (f *fakeCard) Random(ctx context.Context, p []byte) error {
	if f.fail != nil {
		return f.fail
	}
	return f.software.Random(ctx, p)
}
func (f *fakeCard) Supports(a Algorithm) bool { return forCards(a) }

func newTestService(t *testing.T, opts Options, card hardware) (*Service, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(t.Context(), opts)
	if err != nil && !opts.RequireHardware {
		t.Fatal(err)
	}
	if card != nil {
		s.card, s.cardErr, s.onCard = card, nil, true
		if fake, ok := card.(*fakeCard); ok {
			fake.software = s.software
		}
	}
	return s, &log
}

func TestPolicy(t *testing.T) {
	busy := qverr.New(qverr.Again, "the engine is busy")
	hot := qverr.New(qverr.QUACOvertemp, "too hot")
	wrong := qverr.New(qverr.PQCEncaps, "a bad key")
	for _, c := range []struct {
		name     string
		card     *fakeCard
		require  bool
		want     qverr.Code // of the call
		provider string
		fallback uint64
	}{
		{"healthy card", &fakeCard{}, false, qverr.Success, "quac100", 0},
		{"no card", nil, false, qverr.Success, "software", 0},
		{"no card, but required", nil, true, qverr.PQCFallback, "none", 0},
		{"sick card", &fakeCard{healthy: hot}, false, qverr.Success, "software", 1},
		{"sick card, but required", &fakeCard{healthy: hot}, true, qverr.PQCFallback, "none", 1},
		{"card is busy", &fakeCard{fail: busy}, false, qverr.Success, "quac100", 1},
		{"card is busy, but required", &fakeCard{fail: busy}, true, qverr.PQCFallback, "quac100", 1},
		{"the call is wrong", &fakeCard{fail: wrong}, false, qverr.PQCEncaps, "quac100", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var card hardware
			if c.card != nil {
				card = c.card
			}
			s, _ := newTestService(t, Options{RequireHardware: c.require}, card)
			if got := qverr.CodeOf(s.Random(t.Context(), make([]byte, 16))); got != c.want {
				t.Errorf("code %d, want %d", got, c.want)
			}
			st := s.Status(t.Context())
			if st.Provider != c.provider || st.Fallbacks != c.fallback {
				t.Errorf("status %+v, want provider %s and %d fallbacks", st, c.provider, c.fallback)
			}
		})
	}
}

// Each switch is logged once, in both directions.
func TestSwitchesAreLogged(t *testing.T) {
	card := &fakeCard{}
	s, log := newTestService(t, Options{}, card)
	for _, fault := range []error{nil, qverr.New(qverr.QUACOvertemp, "too hot"), qverr.New(qverr.QUACOvertemp, "too hot"), nil, nil} {
		card.fail = fault
		if err := s.Random(t.Context(), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "software serves instead"); n != 1 {
		t.Errorf("%d lines about the fallback, want 1:\n%s", n, log)
	}
	if n := strings.Count(log.String(), "serves again"); n != 1 {
		t.Errorf("%d lines about the return, want 1:\n%s", n, log)
	}
	if st := s.Status(t.Context()); st.CardCalls != 3 || st.SoftwareCalls != 2 {
		t.Errorf("calls: %+v", st)
	}
}

func TestNoSuchCard(t *testing.T) {
	s, _ := newTestService(t, Options{Cards: []string{"ffff:ff:1f.7"}}, nil)
	st := s.Status(t.Context())
	if got := qverr.CodeOf(st.CardError); st.Provider != "software" || got != qverr.NoDev {
		t.Errorf("provider %s, card error %v", st.Provider, st.CardError)
	}
}
