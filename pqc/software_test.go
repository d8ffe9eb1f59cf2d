package pqc

import (
	"bytes"
	"context"
	"crypto/mlkem"
	"testing"

	"quantavirt/internal/qverr"
)

// The software's keys and ciphertexts mean the same to the standard library's
// implementation, which shares no code with circl.
func TestSoftwareAgainstStandardLibrary(t *testing.T) {
	ctx := context.Background()
	p, err := newSoftware()
	if err != nil {
		t.Fatal(err)
	}
	seed := make([]byte, mlkem.SeedSize)
	if err := p.Random(ctx, seed); err != nil {
		t.Fatal(err)
	}
	peer, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, shared, err := p.MLKEM768().Encapsulate(ctx, peer.EncapsulationKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := peer.Decapsulate(ciphertext)
	if err != nil || !bytes.Equal(got, shared) {
		t.Fatalf("the peer decapsulates %x, %v; want %x", got, err, shared)
	}

	public, secret, err := p.MLKEM768().GenerateKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := mlkem.NewEncapsulationKey768(public)
	if err != nil {
		t.Fatal(err)
	}
	want, ciphertext := ek.Encapsulate()
	got, err = p.MLKEM768().Decapsulate(ctx, secret, ciphertext)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("decapsulated %x, %v; want %x", got, err, want)
	}
	ciphertext[0] ^= 1
	got, err = p.MLKEM768().Decapsulate(ctx, secret, ciphertext)
	if err != nil || bytes.Equal(got, want) {
		t.Errorf("a changed ciphertext gives %x, %v; want another key and no error", got, err)
	}
}

func TestSoftwareRefusesBadInput(t *testing.T) {
	ctx := context.Background()
	kem := softwareMLKEM768{}
	public, secret, err := kem.GenerateKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, _, err := kem.Encapsulate(ctx, public)
	if err != nil {
		t.Fatal(err)
	}
	notReduced := bytes.Clone(public)
	copy(notReduced, []byte{0xFF, 0xFF, 0xFF}) // coefficients above q
	wrongHash := bytes.Clone(secret)
	wrongHash[len(wrongHash)-40] ^= 1 // H(ek) inside dk
	for _, c := range []struct {
		name string
		call func() error
		want qverr.Code
	}{
		{"short public key", func() error { _, _, err := kem.Encapsulate(ctx, public[1:]); return err }, qverr.PQCEncaps},
		{"public key out of range", func() error { _, _, err := kem.Encapsulate(ctx, notReduced); return err }, qverr.PQCEncaps},
		{"no public key", func() error { _, _, err := kem.Encapsulate(ctx, nil); return err }, qverr.PQCEncaps},
		{"short secret key", func() error { _, err := kem.Decapsulate(ctx, secret[1:], ciphertext); return err }, qverr.PQCDecaps},
		{"secret key with a wrong hash", func() error { _, err := kem.Decapsulate(ctx, wrongHash, ciphertext); return err }, qverr.PQCDecaps},
		{"long ciphertext", func() error { _, err := kem.Decapsulate(ctx, secret, append(ciphertext, 0)); return err }, qverr.PQCDecaps},
	} {
		if got := qverr.CodeOf(c.call()); got != c.want {
			t.Errorf("%s: code %d, want %d", c.name, got, c.want)
		}
	}
}

// The choice of the implementation, repeated: circl against the standard library.
func BenchmarkMLKEM768(b *testing.B) {
	ctx := context.Background()
	kem := softwareMLKEM768{}
	public, secret, err := kem.GenerateKey(ctx)
	if err != nil {
		b.Fatal(err)
	}
	ciphertext, _, _ := kem.Encapsulate(ctx, public)
	std, _ := mlkem.GenerateKey768()
	_, stdCiphertext := std.EncapsulationKey().Encapsulate()
	for _, c := range []struct {
		name string
		call func()
	}{
		{"encapsulate/circl", func() { _, _, _ = kem.Encapsulate(ctx, public) }},
		{"encapsulate/standard", func() {
			ek, _ := mlkem.NewEncapsulationKey768(public)
			_, _ = ek.Encapsulate()
		}},
		{"decapsulate/circl", func() { _, _ = kem.Decapsulate(ctx, secret, ciphertext) }},
		{"decapsulate/standard", func() { _, _ = std.Decapsulate(stdCiphertext) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.call()
			}
		})
	}
}
