package pqc

import (
	"bytes"
	"errors"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/model"
)

// Stored keys on the model, by handle, over a reset of the card.
func TestStored(t *testing.T) {
	s, p, _ := cardService(t, model.Config{})
	ctx := t.Context()
	sizes, _ := MLKEM768.Params()
	public := make([]byte, sizes.PublicKey)
	serial, kem, err := s.GenerateStored(ctx, MLKEM768, public)
	if err != nil || serial == "" || kem == 0 {
		t.Fatalf("%q, %#x, %v", serial, kem, err)
	}
	if err := s.ResetCard(ctx, p.Address()); err != nil {
		t.Fatal(err)
	}
	e, err := s.software.Encapsulator(ctx, MLKEM768, public)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, want, got := make([]byte, sizes.Output), make([]byte, 32), make([]byte, 32)
	if err := e.Encapsulate(ctx, ciphertext, want); err != nil {
		t.Fatal(err)
	}
	if err := s.DecapsulateStored(ctx, serial, kem, MLKEM768, got, ciphertext); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v", err)
	}
	sizes, _ = MLDSA65.Params()
	public = make([]byte, sizes.PublicKey)
	_, signs, err := s.GenerateStored(ctx, MLDSA65, public)
	if err != nil {
		t.Fatal(err)
	}
	o := &SignOptions{Context: []byte("c")}
	signature := make([]byte, sizes.Output)
	if err := s.SignStored(ctx, serial, signs, MLDSA65, signature, []byte("m"), o); err != nil {
		t.Fatal(err)
	}
	v, err := s.software.Verifier(ctx, MLDSA65, public)
	if err == nil {
		err = v.Verify(ctx, []byte("m"), signature, o)
	}
	if err != nil {
		t.Error(err)
	}
	if err := s.SignStored(ctx, "another", signs, MLDSA65, signature, []byte("m"), o); !errors.Is(err, qverr.QUACNotFound) {
		t.Errorf("another card: %v", err)
	}
	if err := s.DestroyStored(ctx, serial, signs); err != nil {
		t.Error(err)
	}
	if err := s.SignStored(ctx, serial, signs, MLDSA65, signature, []byte("m"), o); !errors.Is(err, qverr.PQCKeyNotFound) {
		t.Errorf("destroyed: %v", err)
	}
	none, err := Open(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := none.GenerateStored(ctx, MLKEM768, make([]byte, 1184)); !errors.Is(err, qverr.QUACNotFound) {
		t.Errorf("without a card: %v", err)
	}
}
