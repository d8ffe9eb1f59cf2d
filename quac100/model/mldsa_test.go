package model

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/quac100/regs"
)

// Our internal forms give what circl gives for a pure message, and accept its signatures.
func TestMLDSAInternal(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{1})
	for round := range 12 {
		var seed [32]byte
		rng.Read(seed[:])
		msg, ctx := make([]byte, round*17), []byte("context")[:round%8]
		rng.Read(msg)
		formatted := append(append([]byte{0, byte(len(ctx))}, ctx...), msg...)
		for _, alg := range []regs.Alg{regs.MLDSA44, regs.MLDSA65, regs.MLDSA87} {
			s, _ := regs.SizesOf(alg)
			want := make([]byte, s.Output)
			var pub, sec []byte
			switch alg {
			case regs.MLDSA44:
				pk, sk := mldsa44.NewKeyFromSeed(&seed)
				pub, sec = pk.Bytes(), sk.Bytes()
				_ = mldsa44.SignTo(sk, msg, ctx, false, want)
			case regs.MLDSA65:
				pk, sk := mldsa65.NewKeyFromSeed(&seed)
				pub, sec = pk.Bytes(), sk.Bytes()
				_ = mldsa65.SignTo(sk, msg, ctx, false, want)
			case regs.MLDSA87:
				pk, sk := mldsa87.NewKeyFromSeed(&seed)
				pub, sec = pk.Bytes(), sk.Bytes()
				_ = mldsa87.SignTo(sk, msg, ctx, false, want)
			}
			p := dsaParamsOf(alg)
			got := p.sign(sec, formatted, make([]byte, 32))
			if !bytes.Equal(got, want) {
				t.Fatalf("%v: another signature than circl's", alg)
			}
			if !p.verify(pub, formatted, want) {
				t.Errorf("%v: a good signature is refused", alg)
			}
			for _, at := range []int{0, len(want) / 2, len(want) - 1} {
				bad := bytes.Clone(want)
				bad[at] ^= 1
				if p.verify(pub, formatted, bad) {
					t.Errorf("%v: a signature with byte %d changed is accepted", alg, at)
				}
			}
		}
	}
}
