package envelope

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"quantavirt/internal/qverr"
)

func recipient(t *testing.T) *Recipient {
	t.Helper()
	r, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	r := recipient(t)
	plain := []byte("a private key")
	sealed, err := Seal(r.Public(), Import, plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, plain) || len(sealed) != Overhead+len(plain) {
		t.Errorf("%d bytes", len(sealed))
	}
	got, err := r.Open(Import, sealed)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Wipe()
	if !bytes.Equal(got.Bytes(), plain) {
		t.Errorf("%q", got.Bytes())
	}
}

// Each byte counts, and so do the purpose and the recipient.
func TestRefused(t *testing.T) {
	r := recipient(t)
	sealed, err := Seal(r.Public(), Import, []byte("a private key"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, r *Recipient, p Purpose, envelope []byte) {
		if _, err := r.Open(p, envelope); !errors.Is(err, qverr.PQCDecrypt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range sealed {
		damaged := slices.Clone(sealed)
		damaged[i] ^= 1
		refused("a flipped bit", r, Import, damaged)
	}
	refused("cut off", r, Import, sealed[:len(sealed)-1])
	refused("empty", r, Import, nil)
	refused("no secret", r, Import, sealed[:Overhead])
	refused("another purpose", r, Export, sealed)
	refused("another recipient", recipient(t), Import, sealed)
	refused("too large", r, Import, append(sealed, make([]byte, MaxSecret)...))
}

func TestSealRefuses(t *testing.T) {
	r := recipient(t)
	if _, err := Seal(r.Public(), Import, nil); !errors.Is(err, qverr.Inval) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := Seal(r.Public(), Import, make([]byte, MaxSecret+1)); !errors.Is(err, qverr.Inval) {
		t.Errorf("too much: %v", err)
	}
	if _, err := Seal(r.Public()[1:], Import, []byte{1}); !errors.Is(err, qverr.PQCEncaps) {
		t.Errorf("no key: %v", err)
	}
	bad := r.Public()
	bad[0], bad[1] = 0xFF, 0xFF // a coefficient beyond the modulus
	if _, err := Seal(bad, Import, []byte{1}); !errors.Is(err, qverr.PQCEncaps) {
		t.Errorf("a key out of range: %v", err)
	}
}
