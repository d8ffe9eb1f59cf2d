package pqc

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// cardService is a Service with the driver on a model.
func cardService(t *testing.T, cfg model.Config) (*Service, *quac100.Card, *model.Card) {
	t.Helper()
	p, m := testCard(t, cfg)
	s, err := Open(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.card, s.cardErr, s.onCard = p, nil, true
	return s, p.pool.Cards()[0], m
}

func TestCardActions(t *testing.T) {
	s, p, m := cardService(t, model.Config{})
	at := p.Address()
	if err := s.TestCard(t.Context(), at); err != nil {
		t.Error(err)
	}
	st, err := s.CardStats(at)
	if err != nil || st.OK == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	m.FailSelfTest(regs.TestNTT)
	if err := s.TestCard(t.Context(), at); !errors.Is(err, qverr.QUACSelfTest) {
		t.Errorf("a failing self-test: %v", err)
	}
	m.FailSelfTest(0)
	if err := s.ResetCard(t.Context(), at); err != nil {
		t.Error(err)
	}
	if err := s.TestCard(t.Context(), at); err != nil {
		t.Errorf("after the reset: %v", err)
	}
	for name, err := range map[string]error{
		"self-test": s.TestCard(t.Context(), "ffff:00:00.0"), "reset": s.ResetCard(t.Context(), "ffff:00:00.0"),
		"update": s.UpdateCard(t.Context(), "ffff:00:00.0", nil, nil),
	} {
		if !errors.Is(err, qverr.QUACNotFound) {
			t.Errorf("%s of another card: %v", name, err)
		}
	}
}

func firmware(t *testing.T, version uint32) (image, public []byte) {
	t.Helper()
	pk, sk, err := mldsa87.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image, err = model.SignFirmware(sk, regs.FWHeader{FWVersion: version, SecVer: 2, Name: "test"}, make([]byte, 100_000))
	if err != nil {
		t.Fatal(err)
	}
	return image, pk.Bytes()
}

// New firmware that works is kept, and one that fails its tests given up.
func TestUpdateCard(t *testing.T) {
	image, key := firmware(t, 0x02000000)
	for _, c := range []struct {
		name   string
		fails  bool
		want   qverr.Code
		phases []string
		bank   int
	}{
		{"good", false, qverr.Success, []string{"program", "reset", "self-test", "commit"}, 1},
		{"fails its tests", true, qverr.QUACFWUpdate, []string{"program", "reset", "self-test", "roll back"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, p, m := cardService(t, model.Config{FWKey: key})
			var phases []string
			err := s.UpdateCard(t.Context(), p.Address(), image, func(phase string, done, total int) {
				if !slices.Contains(phases, phase) {
					phases = append(phases, phase)
				}
				switch {
				case c.fails && phase == "self-test":
					m.FailSelfTest(regs.TestNTT)
				case phase == "roll back":
					m.FailSelfTest(0) // the old firmware has no such fault
				}
			})
			if qverr.CodeOf(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
			if !slices.Equal(phases, c.phases) {
				t.Errorf("phases %v, want %v", phases, c.phases)
			}
			if f := p.Firmware(); f.Running != c.bank || !f.Committed {
				t.Errorf("%+v", f)
			}
			if err := p.Random(context.WithoutCancel(t.Context()), make([]byte, 16)); err != nil {
				t.Errorf("the card afterwards: %v", err)
			}
		})
	}
}
