package crypto

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/pqc"
	"quantavirt/quac100"
)

// fixed has a status and nothing else.
type fixed struct {
	provider
	status pqc.Status
	set    *[]string // cards
}

func (f fixed) SetCards(_ context.Context, addresses []string) { *f.set = addresses }

func (f fixed) Status(context.Context) pqc.Status { return f.status }
func (f fixed) FeedEntropy(context.Context) error { return nil }
func (f fixed) Close() error                      { return nil }

func started(t *testing.T, st pqc.Status, cards ...initapi.Card) *Service {
	t.Helper()
	s := New(Deps{Log: slog.New(slog.DiscardHandler)})
	s.open = func(_ context.Context, opts pqc.Options) (provider, error) { return fixed{status: st}, nil }
	gone, cancel := context.WithCancel(t.Context()) // waits no more
	cancel()
	if _, err := s.QRNG(gone); !errors.Is(err, qverr.Again) {
		t.Errorf("before Start: %v", err)
	}
	s.Start(t.Context(), cards)
	return s
}

func TestNoCard(t *testing.T) {
	s := started(t, pqc.Status{Provider: "software", CardError: qverr.New(qverr.QUACNotFound, "none")})
	if _, err := s.Cards(t.Context()); !errors.Is(err, qverr.QUACNotFound) {
		t.Errorf("Cards: %v", err)
	}
	q, err := s.QRNG(t.Context())
	if err != nil || q.Available || q.Provider != spec.QRNGProviderSoftware || q.Problem.Code != int32(qverr.QUACNotFound) || q.Problem.Recovery == "" {
		t.Errorf("QRNG: %+v, %v", q, err)
	}
}

func TestCards(t *testing.T) {
	card := quac100.Status{Address: "0000:00:05.0", Serial: "QC1", Firmware: "1.2.3", SelfTest: "passed", TempCore: 41500,
		QRNG: quac100.QRNG{Ready: true, Healthy: true, PoolBits: 4096}}
	s := started(t, pqc.Status{Provider: "quac100", Card: &card},
		initapi.Card{Address: "0000:00:05.0", Group: 3, Bound: true},
		initapi.Card{Address: "0000:00:06.0", Group: 4, Problem: &initapi.Problem{Code: int32(qverr.NoIOMMU), Name: "QV_ERR_NOIOMMU", Message: "no group"}})
	got, err := s.Cards(t.Context())
	if err != nil || got.Provider != spec.QUAC100ProviderQuac100 || len(got.Cards) != 2 {
		t.Fatalf("Cards: %+v, %v", got, err)
	}
	if c := got.Cards[0]; !c.Healthy || c.SelfTest != spec.CardSelfTestPassed || *c.TemperatureC != 41.5 || c.Serial != "QC1" {
		t.Errorf("working card: %+v", c)
	}
	if c := got.Cards[1]; c.Healthy || c.Bound || c.Problem.Name != "QV_ERR_NOIOMMU" {
		t.Errorf("card without a group: %+v", c)
	}
}

// Cards that come and go are shown, and those that can be used are passed on.
func TestSetCards(t *testing.T) {
	set := []string{"nothing"}
	s := New(Deps{Log: slog.New(slog.DiscardHandler)})
	s.open = func(_ context.Context, opts pqc.Options) (provider, error) {
		return fixed{status: pqc.Status{CardError: qverr.New(qverr.QUACNotFound, "none")}, set: &set}, nil
	}
	s.Start(t.Context(), nil)
	s.SetCards(t.Context(), []initapi.Card{{Address: "0000:01:00.0", Bound: true}, {Address: "0000:02:00.0"}})
	if !slices.Equal(set, []string{"0000:01:00.0"}) || len(s.Overview(t.Context())) != 2 {
		t.Errorf("%v are used, %+v shown", set, s.Overview(t.Context()))
	}
	s.SetCards(t.Context(), nil)
	if len(set) != 0 || len(s.Overview(t.Context())) != 0 {
		t.Errorf("%v are used, %+v shown", set, s.Overview(t.Context()))
	}
}

func TestRealSoftware(t *testing.T) {
	s := New(Deps{Log: slog.New(slog.DiscardHandler)})
	s.Start(t.Context(), nil)
	if p := s.Provider(t.Context()); p != "software" {
		t.Errorf("provider %s", p)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Feed(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A card that a VM has is not the node's, whatever PID 1 says meanwhile.
func TestLend(t *testing.T) {
	set := []string{}
	var opened []string
	s := New(Deps{Log: slog.New(slog.DiscardHandler)})
	s.open = func(_ context.Context, opts pqc.Options) (provider, error) {
		opened = opts.Cards
		return fixed{status: pqc.Status{CardError: qverr.New(qverr.QUACNotFound, "none")}, set: &set}, nil
	}
	one, two := initapi.Card{Address: "0000:01:00.0", Bound: true}, initapi.Card{Address: "0000:02:00.0", Bound: true}
	s.Lend(t.Context(), one.Address, "early") // of an earlier daemon's VM
	s.Start(t.Context(), []initapi.Card{one, two})
	if !slices.Equal(opened, []string{two.Address}) {
		t.Errorf("opened %v", opened)
	}
	if all, err := s.Addresses(t.Context()); err != nil || !slices.Equal(all, []string{one.Address, two.Address}) {
		t.Errorf("%v, %v", all, err)
	}
	s.Lend(t.Context(), two.Address, "web")
	s.SetCards(t.Context(), []initapi.Card{one, two})
	if len(set) != 0 {
		t.Errorf("used: %v", set)
	}
	if o := s.Overview(t.Context()); o[0].VM != "early" || o[1].VM != "web" || o[1].Problem.Code != 0 {
		t.Errorf("%+v", o)
	}
	s.Return(t.Context(), one.Address)
	if o := s.Overview(t.Context()); !slices.Equal(set, []string{one.Address}) || o[0].VM != "" {
		t.Errorf("used: %v, %+v", set, o)
	}
}
