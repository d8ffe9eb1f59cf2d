package keystore

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// slots is a card that is software: what it keeps is in the test.
type slots struct {
	crypto *pqc.Service
	keys   map[uint32][]byte
	fail   error
}

func (c *slots) GenerateStored(ctx context.Context, a pqc.Algorithm, public []byte) (string, uint32, error) {
	p, err := a.Params()
	if err != nil {
		return "", 0, err
	}
	h := uint32(len(c.keys) + 0x100)
	c.keys[h] = make([]byte, p.SecretKey)
	return "SN1", h, errors.Join(c.fail, c.crypto.GenerateKey(ctx, a, nil, public, c.keys[h]))
}

func (c *slots) key(serial string, handle uint32) ([]byte, error) {
	if c.fail != nil {
		return nil, c.fail
	}
	if k := c.keys[handle]; k != nil && serial == "SN1" {
		return k, nil
	}
	return nil, qverr.New(qverr.PQCKeyNotFound, "no key %#x on card %s", handle, serial)
}

func (c *slots) SignStored(ctx context.Context, serial string, handle uint32, a pqc.Algorithm, signature, message []byte, o *pqc.SignOptions) error {
	k, err := c.key(serial, handle)
	if err != nil {
		return err
	}
	signer, err := c.crypto.Signer(ctx, a, k)
	if err != nil {
		return err
	}
	return signer.Sign(ctx, signature, message, o)
}

func (c *slots) DecapsulateStored(ctx context.Context, serial string, handle uint32, a pqc.Algorithm, shared, ciphertext []byte) error {
	k, err := c.key(serial, handle)
	if err != nil {
		return err
	}
	d, err := c.crypto.Decapsulator(ctx, a, k)
	if err != nil {
		return err
	}
	return d.Decapsulate(ctx, shared, ciphertext)
}

func (c *slots) DestroyStored(_ context.Context, serial string, handle uint32) error {
	_, err := c.key(serial, handle)
	if err == nil {
		delete(c.keys, handle)
	}
	return err
}

// Keys on a card: used by handle over a restart, rotated on the card, and destroyed there.
func TestOnCard(t *testing.T) {
	r := newRig(t)
	card := &slots{crypto: r.crypto, keys: make(map[uint32][]byte)}
	open := func() *Store {
		s := r.open()
		s.Card = card
		return s
	}
	s := open()
	if _, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLDSA65, OnCard: true, Extractable: true}); !errors.Is(err, qverr.Inval) {
		t.Errorf("extractable: %v", err)
	}
	signs, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLDSA65, Label: "signs", OnCard: true})
	if err != nil || signs.Card != "SN1" {
		t.Fatalf("%+v, %v", signs, err)
	}
	kem, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLKEM768, Label: "kem", OnCard: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLKEM768, Label: "kem", OnCard: true}); !errors.Is(err, qverr.Exist) || len(card.keys) != 2 {
		t.Errorf("a label that is taken: %v, %d keys on the card", err, len(card.keys))
	}
	_ = s.Close()
	s = open()
	sig, err := s.Sign(t.Context(), "signs", []byte("m"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.crypto.Verifier(t.Context(), pqc.MLDSA65, signs.Public)
	if err == nil {
		err = v.Verify(t.Context(), []byte("m"), sig, nil)
	}
	if err != nil {
		t.Error(err)
	}
	ciphertext, want := encapsulate(t, r, kem)
	if got, err := s.Decapsulate(t.Context(), "kem", ciphertext); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%v", err)
	}
	if _, err := s.Export(t.Context(), "kem"); !errors.Is(err, qverr.Perm) {
		t.Errorf("exported: %v", err)
	}
	made, err := s.Rotate(t.Context(), "signs", time.Time{})
	if err != nil || made.Card != "SN1" || len(card.keys) != 3 {
		t.Errorf("%+v, %v, %d keys on the card", made, err, len(card.keys))
	}
	card.fail = qverr.New(qverr.QUACWatchdog, "the card does not answer")
	if err := s.Destroy(t.Context(), "kem"); !errors.Is(err, qverr.QUACWatchdog) {
		t.Errorf("destroyed without its card: %v", err)
	}
	card.fail = nil
	for _, ref := range []string{"kem", signs.ID, made.ID} {
		if err := s.Destroy(t.Context(), ref); err != nil {
			t.Error(err)
		}
	}
	if keys, err := s.List(); err != nil || len(keys) != 0 || len(card.keys) != 0 {
		t.Errorf("%d keys, %d on the card, %v", len(keys), len(card.keys), err)
	}
}
