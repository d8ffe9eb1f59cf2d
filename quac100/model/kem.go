package model

import (
	"crypto/sha3"
	"crypto/subtle"

	"github.com/cloudflare/circl/kem"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/slhdsa"

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
	uses := func(f regs.Flags) layout { return keygenLayout(f, 64, 64) }
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagSeed | regs.FlagKeyStore | regs.FlagPersist, badFlags: persistAlone,
		feature: regs.ControlCrypto, alg: inFamily(regs.CapMLKEM), uses: uses,
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			l[dst0] = room(s.Public)
			if l[dst1].kind != ruleUnused {
				l[dst1] = room(s.Secret)
			}
			return l
		},
		stores: storing,
		random: func(m *command) (int, regs.Quality, bool) { return unseeded(m, sizesOf(m).Seed) },
		run:    func(c *Card, j *job) verdict { return c.generate(j, regs.KeyKEMPair) },
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
		if f&regs.FlagKeyStore != 0 {
			l[src1], l[dst1] = option(regs.AttributesSize), rule{}
		}
		return l
	}
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagKeyInline | regs.FlagSeed | regs.FlagKeyStore,
		badFlags: func(f regs.Flags) bool { return f&regs.FlagSeed != 0 && f&regs.FlagKeyStore != 0 },
		feature:  regs.ControlCrypto, alg: inFamily(regs.CapMLKEM),
		key: withoutInline, uses: uses,
		need: func(*command) keyNeed {
			return keyNeed{usage: regs.UsageEncrypt, types: kemPublic, alg: true, uses: true}
		},
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			if l[src0].kind != ruleUnused {
				l[src0] = exact(s.Public)
			}
			l[dst0] = room(s.Output)
			return l
		},
		stores: storing,
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
		if f&regs.FlagKeyStore != 0 {
			l[dst0] = rule{}
		}
		return l
	}
	return &op{
		caps: regs.CapMLKEM, flags: regs.FlagKeyInline | regs.FlagKeyStore, feature: regs.ControlCrypto, alg: inFamily(regs.CapMLKEM),
		key: withoutInline, uses: uses,
		need: func(*command) keyNeed {
			return keyNeed{usage: regs.UsageDecrypt, types: kemSecret, alg: true, uses: true}
		},
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			l[src0] = exact(s.Output)
			if l[src1].kind != ruleUnused {
				l[src1] = exact(s.Secret)
			}
			return l
		},
		stores: storing,
		run:    runKEMDecaps,
	}
}

// sharedKey turns a shared key into one of the key store, if the command asks for that.
func sharedKey(j *job, v verdict, at int) verdict {
	if v.status != 0 || j.Flags&regs.FlagKeyStore == 0 {
		return v
	}
	k := &storedKey{secret: v.out[at], attrs: regs.Attributes{
		Version: regs.AttributesVersion, Alg: regs.AES256GCM, Type: regs.KeySymmetric, State: regs.KeyActive,
		Usage: regs.UsageEncrypt | regs.UsageDecrypt, Flags: regs.AttrDestroyable,
	}}
	if j.Opcode == regs.OpKEMEncaps && len(j.in[1]) > 0 {
		a, bad := attributesFor(j.in[1], regs.AES256GCM, regs.KeySymmetric, false)
		if bad.status != 0 {
			return bad
		}
		k.attrs = a
	}
	named(k)
	v.out[at], v.store = nil, k
	return v
}

func approved(j *job) regs.RespFlags {
	if j.fips {
		return regs.RespFIPSApproved
	}
	return 0
}

// pairwise uses a new key pair once. If that fails the card goes to its error state.
func (c *Card) pairwise(alg regs.Alg, public, secret []byte) bool {
	good := pairWorks(alg, public, secret)
	c.lock()
	defer c.unlock()
	if good && !c.faults.pairwise {
		return true
	}
	if c.phase == phaseOK {
		c.phase = phaseError
	}
	c.fail(regs.ErrSelfTest, uint16(regs.OpKEMKeygen), regs.DetailSelfTestRequired, 0)
	c.fail(regs.ErrFatal, uint16(regs.OpKEMKeygen), regs.DetailSelfTestRequired, 0)
	return false
}

func pairWorks(alg regs.Alg, public, secret []byte) bool {
	if s, _ := regs.SizesOf(alg); s.Family == regs.FamilySignature {
		msg := []byte("pairwise")
		j := &job{command: &command{Command: regs.Command{Param: alg}}}
		if id, slh := slhIDs[alg]; slh {
			key := slhdsa.PublicKey{ID: id}
			sig := slhSign(j, secret, nil, nil, msg)
			return sig != nil && key.UnmarshalBinary(public) == nil && slhdsa.Verify(&key, slhdsa.NewMessage(msg), sig, nil)
		}
		return circlVerify(alg, public, nil, msg, circlSign(alg, secret, nil, msg))
	}
	scheme := kemScheme(alg)
	pk, err1 := scheme.UnmarshalBinaryPublicKey(public)
	sk, err2 := scheme.UnmarshalBinaryPrivateKey(secret)
	if err1 != nil || err2 != nil {
		return false
	}
	ct, want, err := scheme.EncapsulateDeterministically(pk, make([]byte, scheme.EncapsulationSeedSize()))
	if err != nil {
		return false
	}
	got, err := scheme.Decapsulate(sk, ct)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
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
	c.set(regs.NTTErr, c.get(regs.NTTErr)|1)
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
	public := j.in[0]
	if j.key != nil {
		public = j.key.public
	}
	scheme := kemScheme(j.Param)
	pk, err := scheme.UnmarshalBinaryPublicKey(public)
	// The modulus check of FIPS 203, section 7.2: decoding and encoding again must give the same bytes.
	if err != nil || !publicOK(j.Param, public) {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	ct, k, err := scheme.EncapsulateDeterministically(pk, seed)
	if err != nil {
		return refuse(regs.RespUnknown, 0)
	}
	return sharedKey(j, verdict{out: [2][]byte{ct, k}, flags: approved(j), secret: true}, 1)
}

func runKEMDecaps(c *Card, j *job) verdict {
	secret := j.in[1]
	if j.key != nil {
		secret = j.key.secret
	}
	if !hashCheck(j.Param, secret) {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	scheme := kemScheme(j.Param)
	sk, err := scheme.UnmarshalBinaryPrivateKey(secret)
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
	return sharedKey(j, verdict{out: [2][]byte{k}, flags: approved(j), secret: true}, 0)
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
