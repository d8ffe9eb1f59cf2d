package pqc

import (
	"testing"

	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
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
	return newCardProvider(card, testSoftware(t)), m
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
		p, _ := testCard(t, model.Config{})
		if !p.Supports(a) {
			t.Skipf("the driver of the card has no %s", a)
		}
		v := &vectors{t, p, tally{}}
		run(v)
		v.count.report(t, "the card")
	})
}
