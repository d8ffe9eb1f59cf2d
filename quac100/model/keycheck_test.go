package model

import (
	"encoding"
	"fmt"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/quac100/regs"
)

// publicByCircl computes the public key without a look at the coefficients.
func publicByCircl(t *testing.T, alg regs.Alg, secret []byte) []byte {
	t.Helper()
	var sk encoding.BinaryUnmarshaler
	var public func() []byte
	switch alg {
	case regs.MLDSA44:
		k := new(mldsa44.PrivateKey)
		sk, public = k, func() []byte { return k.Public().(*mldsa44.PublicKey).Bytes() }
	case regs.MLDSA65:
		k := new(mldsa65.PrivateKey)
		sk, public = k, func() []byte { return k.Public().(*mldsa65.PublicKey).Bytes() }
	default:
		k := new(mldsa87.PrivateKey)
		sk, public = k, func() []byte { return k.Public().(*mldsa87.PublicKey).Bytes() }
	}
	if err := sk.UnmarshalBinary(secret); err != nil {
		t.Fatal(err)
	}
	return public()
}

// An expanded ML-DSA key whose secret vectors have a coefficient out of range is none, although its public key and tr
// agree with it: it is neither stored nor signed with.
func TestMLDSAKeyRange(t *testing.T) {
	r := running(t, Config{})
	for _, alg := range []regs.Alg{regs.MLDSA44, regs.MLDSA65, regs.MLDSA87} {
		p := dsaParamsOf(alg)
		s, _ := regs.SizesOf(alg)
		vectors := (p.l + p.k) * 32 * p.etaBits() // bytes
		for name, at := range map[string]int{"first of s1": 0, "first of s2": p.l * 32 * p.etaBits(), "last of s2": vectors - 1, "none": -1} {
			t.Run(fmt.Sprintf("%v/%s", alg, name), func(t *testing.T) {
				r.T, r.freeAt = t, dataAt
				_, secret := derive(alg, make([]byte, 32))
				if at >= 0 {
					secret[128+at] = 0xFF // every encoding above 2*eta is out of range
				}
				public := publicByCircl(t, alg, secret)
				copy(secret[64:128], shake(64, public))
				status, detail := regs.RespCryptoFail, regs.DetailKeyCheck
				if at < 0 {
					status, detail = 0, 0
				}
				r.want(r.importKey(regs.Attributes{Alg: alg, Type: regs.KeySignatureSecret, Usage: regs.UsageSign}, secret, 0), status, detail)
				r.want(r.importKey(regs.Attributes{Alg: alg, Type: regs.KeySignaturePair, Usage: regs.UsageSign}, append(public, secret...), 0), status, detail)
				dst, _ := r.alloc(s.Output)
				r.want(regs.Command{Opcode: regs.OpSign, Flags: regs.FlagKeyInline, Param: alg, Src0: r.put([]byte("m")), Src0Len: 1,
					Src1: r.put(secret), Src1Len: uint32(len(secret)), Dst0: dst, Dst0Len: uint32(s.Output)}, status, detail)
			})
		}
	}
	r.T = t
}
