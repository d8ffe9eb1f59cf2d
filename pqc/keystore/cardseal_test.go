package keystore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
)

// machine has a slot for one card.
type machine struct {
	*rig
	in *model.Card // nil while the slot is empty
}

// cardMachine is a rig without a TPM, whose cryptography is served by the card in its slot.
func cardMachine(t *testing.T) *machine {
	m := &machine{rig: newRig(t)}
	m.sealer = nil
	var err error
	m.crypto, err = pqc.Open(t.Context(), pqc.Options{OpenCard: func(ctx context.Context, _ string) (*quac100.Card, error) {
		return quac100.Open(ctx, direct.New(m.in))
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.crypto.Close() })
	return m
}

func (m *machine) card(serial uint64) *model.Card {
	m.t.Helper()
	c, err := model.New(model.Config{HostMSIX: true, Serial: serial})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	return c
}

// put puts a card into the slot in place of the one that is there; nil leaves it empty.
func (m *machine) put(c *model.Card) {
	m.t.Helper()
	m.crypto.SetCards(m.t.Context(), nil)
	m.in = c
	if c != nil {
		m.crypto.SetCards(m.t.Context(), []string{"model"})
	}
	if st := m.crypto.Status(m.t.Context()); (st.CardError == nil) != (c != nil) {
		m.t.Fatal(st.CardError)
	}
}

func (m *machine) store() (*Store, error) {
	s := New(Options{Dir: m.dir, Provider: m.crypto, Counter: m.counter, Card: m.crypto, Others: []Sealer{CardSealer{m.crypto}}})
	m.t.Cleanup(func() { _ = s.Close() })
	return s, s.Load()
}

// shuts holds that the keystore does not open, and why.
func (m *machine) shuts(what string, why qverr.Code) {
	m.t.Helper()
	s, err := m.store()
	if !errors.Is(err, qverr.PQCKeystore) || s.Status().Condition == Open || !strings.Contains(err.Error(), "card") {
		m.t.Errorf("%s: %v, %s", what, err, s.Status().Condition)
	}
	if !errors.Is(err, why) {
		m.t.Errorf("%s: %v, want %v", what, err, why)
	}
	if _, err := s.Sign(m.t.Context(), "signs", nil, nil); !errors.Is(err, qverr.PQCKeystore) {
		m.t.Errorf("%s: it signs: %v", what, err)
	}
}

// The card opens the keystore, over its resets too; without it, with another one or with one
// that only has its number the keystore stays shut, until it is back.
func TestSealedByCard(t *testing.T) {
	m := cardMachine(t)
	ours := m.card(1)
	s, _ := m.store()
	if err := s.Create(nil, false, ByCard); !errors.Is(err, qverr.QUACNotFound) {
		t.Errorf("made without a card: %v", err)
	}
	m.put(ours)
	if err := s.Create(nil, false, ""); !errors.Is(err, qverr.Inval) {
		t.Errorf("a card keeps the key without being asked: %v", err)
	}
	if err := s.Create(nil, false, ByTPM); !errors.Is(err, qverr.NoDev) {
		t.Errorf("a TPM that is not there keeps the key: %v", err)
	}
	if err := s.Create(nil, false, ByCard); err != nil {
		t.Fatal(err)
	}
	key := m.generate(s, pqc.MLDSA44, "signs")
	if by := s.Status().OpenedBy; !slices.Equal(by, []string{ByCard}) {
		t.Errorf("opened by %v", by)
	}
	_ = s.Close()
	opens := func(when string) {
		t.Helper()
		s, err := m.store()
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if k, err := s.Get("signs"); err != nil || k.ID != key.ID {
			t.Errorf("%s: %v", when, err)
		}
		_ = s.Close()
	}
	opens("again")
	if err := m.crypto.ResetCard(t.Context(), "model"); err != nil {
		t.Fatal(err)
	}
	opens("after a reset of the card")
	m.put(nil)
	m.shuts("no card", qverr.QUACNotFound)
	waiting, _ := m.store()
	m.put(m.card(2))
	m.shuts("another card", qverr.QUACNotFound)
	m.put(m.card(1))
	m.shuts("a card with the same number", qverr.PQCKeyNotFound)
	stolen := m.card(1)
	m.put(stolen)
	if _, err := m.crypto.SealByCard(t.Context(), sealPurpose, make([]byte, masterSize)); err != nil {
		t.Fatal(err)
	}
	m.shuts("a card with the same number and a key at that handle", qverr.PQCDecrypt)
	if err := waiting.LoadAgain(); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("looked at again: %v", err)
	}
	m.put(ours)
	if err := waiting.LoadAgain(); err != nil {
		t.Errorf("looked at again with its card: %v", err)
	}
	opens("with its card")
}

// A passphrase opens it as well, and recovers it for another card; one key of a card is
// enough for all keystores.
func TestSealedByCardAndPassphrase(t *testing.T) {
	m := cardMachine(t)
	one, two := m.card(1), m.card(2)
	m.put(one)
	s, _ := m.store()
	if err := s.Create(secretPhrase, false, ByCard); err != nil {
		t.Fatal(err)
	}
	key := m.generate(s, pqc.MLKEM768, "kem")
	_ = s.Close()
	m.put(two)
	s, err := m.store()
	if !errors.Is(err, qverr.PQCKeystore) || s.Status().Condition != Locked {
		t.Errorf("another card: %v, %s", err, s.Status().Condition)
	}
	if err := s.Unlock(secretPhrase, false); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	if s, err = m.store(); err == nil {
		t.Error("the other card opens it without being asked to")
	}
	if err := s.Unlock(secretPhrase, true); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if s, err = m.store(); err != nil {
		t.Errorf("recovered for the other card: %v", err)
	}
	if k, err := s.Get("kem"); err != nil || k.ID != key.ID {
		t.Error(err)
	}
	_ = s.Close()
	m.put(one)
	m.shuts("the card of before", qverr.QUACNotFound)
	m.put(nil)
	if s, _ = m.store(); s.Unlock(secretPhrase, true) != nil || !slices.Equal(s.Status().OpenedBy, []string{ByPassphrase}) {
		t.Errorf("recovered without a card: %+v", s.Status())
	}
	_ = s.Close()
	m.put(two)
	before, err := m.crypto.SealByCard(t.Context(), sealPurpose, []byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.crypto.SealByCard(t.Context(), sealPurpose, []byte("a secret")); err != nil || again.Handle != before.Handle || string(again.Nonce) == string(before.Nonce) {
		t.Errorf("%+v and %+v, %v", before, again, err)
	}
	if _, err := m.crypto.OpenByCard(t.Context(), "another purpose", before); !errors.Is(err, qverr.PQCDecrypt) {
		t.Errorf("opened for another purpose: %v", err)
	}
	before.Nonce = nil
	if _, err := m.crypto.OpenByCard(t.Context(), sealPurpose, before); !errors.Is(err, qverr.PQCDecrypt) {
		t.Errorf("opened without a nonce: %v", err)
	}
}
