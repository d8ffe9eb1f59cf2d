package model

import (
	"bytes"
	"crypto/sha3"
	"crypto/subtle"

	"github.com/cloudflare/circl/kem"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"

	"quantavirt/quac100/regs"
)

func kemScheme(a regs.Alg) kem.Scheme {
	switch a {
	case regs.MLKEM512:
		return mlkem512.Scheme()
	case regs.MLKEM768:
		return mlkem768.Scheme()
	}
	return mlkem1024.Scheme()
}

func sizesOf(m *command) regs.Sizes {
	s, _ := regs.SizesOf(m.Param) // checked in step 8
	return s
}

func kemKeygenOp() *op {
	uses := func(f regs.Flags) layout {
		l := layout{dst0: room(1), dst1: room(1)}
		if f&regs.FlagSeed != 0 {
			l[src0] = exact(64)
		}
		return l
	}
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagSeed, feature: regs.ControlCrypto, alg: true, uses: uses,
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			l[dst0], l[dst1] = room(s.Public), room(s.Secret)
			return l
		},
		random: func(m *command) (int, regs.Quality, bool) { return unseeded(m, sizesOf(m).Seed) },
		run:    runKEMKeygen,
	}
}

// unseeded is the randomness that an operation needs from the card: none if the caller supplies it.
func unseeded(m *command, n int) (int, regs.Quality, bool) {
	if m.Flags&regs.FlagSeed != 0 {
		n = 0
	}
	return n, regs.QualityFast, true
}

func kemEncapsOp() *op {
	uses := func(f regs.Flags) layout {
		l := layout{dst0: room(1), dst1: room(regs.SharedSize)}
		if f&regs.FlagKeyInline != 0 {
			l[src0] = room(1)
		}
		if f&regs.FlagSeed != 0 {
			l[src1] = exact(32)
		}
		return l
	}
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagKeyInline | regs.FlagSeed, feature: regs.ControlCrypto, alg: true,
		key: withoutInline, uses: uses,
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			if l[src0].kind != ruleUnused {
				l[src0] = exact(s.Public)
			}
			l[dst0] = room(s.Output)
			return l
		},
		random: func(m *command) (int, regs.Quality, bool) { return unseeded(m, 32) },
		run:    runKEMEncaps,
	}
}

func kemDecapsOp() *op {
	uses := func(f regs.Flags) layout {
		l := layout{src0: room(1), dst0: room(regs.SharedSize)}
		if f&regs.FlagKeyInline != 0 {
			l[src1] = room(1)
		}
		return l
	}
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagKeyInline, feature: regs.ControlCrypto, alg: true,
		key: withoutInline, uses: uses,
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			l[src0] = exact(s.Output)
			if l[src1].kind != ruleUnused {
				l[src1] = exact(s.Secret)
			}
			return l
		},
		run: runKEMDecaps,
	}
}

func approved(j *job) regs.RespFlags {
	if j.fips {
		return regs.RespFIPSApproved
	}
	return 0
}

func runKEMKeygen(c *Card, j *job) verdict {
	seed := j.in[0]
	if j.grant != nil {
		seed = c.random(j.grant)
		defer clear(seed)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	scheme := kemScheme(j.Param)
	pk, sk := scheme.DeriveKeyPair(seed)
	ek, err := pk.MarshalBinary()
	if err != nil {
		return refuse(regs.RespUnknown, 0)
	}
	dk, err := sk.MarshalBinary()
	if err != nil {
		return refuse(regs.RespUnknown, 0)
	}
	if j.fips && !c.pairwise(scheme, pk, sk) {
		clear(dk)
		return refuse(regs.RespSelfTestFail, 0)
	}
	return verdict{out: [2][]byte{ek, dk}, flags: approved(j), secret: true}
}

// pairwise encapsulates to a new key and opens it again. If that fails the card goes to its error state.
func (c *Card) pairwise(scheme kem.Scheme, pk kem.PublicKey, sk kem.PrivateKey) bool {
	ct, want, err := scheme.EncapsulateDeterministically(pk, make([]byte, scheme.EncapsulationSeedSize()))
	var got []byte
	if err == nil {
		got, err = scheme.Decapsulate(sk, ct)
	}
	c.lock()
	defer c.unlock()
	if err == nil && subtle.ConstantTimeCompare(got, want) == 1 && !c.faults.pairwise {
		return true
	}
	if c.phase == phaseOK {
		c.phase = phaseError
	}
	c.fail(regs.ErrSelfTest, uint16(regs.OpKEMKeygen), regs.DetailSelfTestRequired, 0)
	c.fail(regs.ErrFatal, uint16(regs.OpKEMKeygen), regs.DetailSelfTestRequired, 0)
	return false
}

// faultCheck finds an injected mismatch of redundant computations. Two in a row are more than an accident.
func (c *Card) faultCheck() verdict {
	c.lock()
	defer c.unlock()
	if c.faults.crypto == 0 {
		c.faults.cryptoRow = 0
		return verdict{}
	}
	c.faults.crypto--
	c.fail(regs.ErrCryptoInternal, 0, 0, 0)
	c.raise(regs.CauseCryptoError)
	if c.faults.cryptoRow++; c.faults.cryptoRow >= 2 && c.phase == phaseOK {
		c.phase = phaseError
	}
	return refuse(regs.RespCryptoFail, 0)
}

func runKEMEncaps(c *Card, j *job) verdict {
	seed := j.in[1]
	if j.grant != nil {
		seed = c.random(j.grant)
		defer clear(seed)
	}
	scheme := kemScheme(j.Param)
	pk, err := scheme.UnmarshalBinaryPublicKey(j.in[0])
	if err != nil {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	// The modulus check of FIPS 203, section 7.2: decoding and encoding again must give the same bytes.
	if again, err := pk.MarshalBinary(); err != nil || !bytes.Equal(again, j.in[0]) {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	ct, k, err := scheme.EncapsulateDeterministically(pk, seed)
	if err != nil {
		return refuse(regs.RespUnknown, 0)
	}
	return verdict{out: [2][]byte{ct, k}, flags: approved(j), secret: true}
}

func runKEMDecaps(c *Card, j *job) verdict {
	if !hashCheck(j.Param, j.in[1]) {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	scheme := kemScheme(j.Param)
	sk, err := scheme.UnmarshalBinaryPrivateKey(j.in[1])
	if err != nil {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	k, err := scheme.Decapsulate(sk, j.in[0])
	if err != nil {
		return refuse(regs.RespUnknown, 0)
	}
	return verdict{out: [2][]byte{k}, flags: approved(j), secret: true}
}

// hashCheck is the check of FIPS 203, section 7.3: dk holds the hash of the encapsulation key in it.
func hashCheck(a regs.Alg, dk []byte) bool {
	s, _ := regs.SizesOf(a)
	if len(dk) != s.Secret {
		return false
	}
	end := len(dk) - 64
	h := sha3.Sum256(dk[end-s.Public : end])
	return subtle.ConstantTimeCompare(h[:], dk[end:end+32]) == 1
}
