package model

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/subtle"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"
	"github.com/cloudflare/circl/xof"

	"quantavirt/quac100/regs"
)

const capSign = regs.CapMLDSA | regs.CapSLHDSA

var slhIDs = map[regs.Alg]slhdsa.ID{
	regs.SLHSHA2128s: slhdsa.SHA2_128s, regs.SLHSHA2128f: slhdsa.SHA2_128f,
	regs.SLHSHA2192s: slhdsa.SHA2_192s, regs.SLHSHA2192f: slhdsa.SHA2_192f,
	regs.SLHSHA2256s: slhdsa.SHA2_256s, regs.SLHSHA2256f: slhdsa.SHA2_256f,
}

// hashes are the pre-hash functions: strength in bits against collisions, and the last arc of the object identifier
// 2.16.840.1.101.3.4.2.
var hashes = map[regs.HashID]struct {
	strength int
	arc      byte
	sum      func([]byte) []byte
	std      crypto.Hash
}{
	regs.HashSHA256:   {128, 1, func(p []byte) []byte { h := sha256.Sum256(p); return h[:] }, crypto.SHA256},
	regs.HashSHA384:   {192, 2, func(p []byte) []byte { h := sha512.Sum384(p); return h[:] }, crypto.SHA384},
	regs.HashSHA512:   {256, 3, func(p []byte) []byte { h := sha512.Sum512(p); return h[:] }, crypto.SHA512},
	regs.HashSHA3256:  {128, 8, func(p []byte) []byte { h := sha3.Sum256(p); return h[:] }, crypto.SHA3_256},
	regs.HashSHA3384:  {192, 9, func(p []byte) []byte { h := sha3.Sum384(p); return h[:] }, crypto.SHA3_384},
	regs.HashSHA3512:  {256, 10, func(p []byte) []byte { h := sha3.Sum512(p); return h[:] }, crypto.SHA3_512},
	regs.HashSHAKE128: {128, 11, func(p []byte) []byte { return sha3.SumSHAKE128(p, 32) }, 0},
	regs.HashSHAKE256: {256, 12, func(p []byte) []byte { return sha3.SumSHAKE256(p, 64) }, 0},
}

// strengthOf is the collision strength that a parameter set wants of a pre-hash.
func strengthOf(a regs.Alg) int {
	switch a {
	case regs.MLDSA44, regs.SLHSHA2128s, regs.SLHSHA2128f:
		return 128
	case regs.MLDSA65, regs.SLHSHA2192s, regs.SLHSHA2192f:
		return 192
	}
	return 256
}

// messageAux checks AUX of SIGN and VERIFY.
func messageAux(m *command) regs.Detail {
	ctx, id := uint32(m.Aux&0xFF), regs.HashID(m.Aux>>8)
	h, known := hashes[id]
	switch {
	case m.Flags&regs.FlagPrehash == 0 && id != 0:
		return regs.DetailBadAux
	case ctx > m.Src0Len:
		return regs.DetailCtxLen
	case m.Flags&regs.FlagPrehash != 0 && (!known || h.strength < strengthOf(m.Param)):
		return regs.DetailHashID
	}
	return 0
}

func sigKeygenOp() *op {
	uses := func(f regs.Flags) layout { return keygenLayout(f, 32, 96) }
	return &op{
		caps: capSign, flags: regs.FlagSeed | regs.FlagKeyStore | regs.FlagPersist, badFlags: persistAlone,
		feature: regs.ControlCrypto, alg: inFamily(capSign), uses: uses,
		sizes: func(m *command) layout {
			s := sizesOf(m)
			l := keygenLayout(m.Flags, s.Seed, s.Seed)
			l[dst0] = room(s.Public)
			if l[dst1].kind != ruleUnused {
				l[dst1] = room(s.Secret)
			}
			return l
		},
		stores: storing,
		random: func(m *command) (int, regs.Quality, bool) { return unseeded(m, sizesOf(m).Seed) },
		run:    runSigKeygen,
	}
}

// keygenLayout is that of both key generations, with a seed of lo to hi bytes.
func keygenLayout(f regs.Flags, lo, hi int) layout {
	l := layout{dst0: room(1), dst1: room(1)}
	if f&regs.FlagSeed != 0 {
		l[src0] = span(lo, hi)
	}
	if f&regs.FlagKeyStore != 0 {
		l[dst1] = rule{}
		l[src1] = option(regs.AttributesSize)
	}
	return l
}

// derive makes the key pair of a seed.
func derive(alg regs.Alg, seed []byte) (public, secret []byte) {
	switch alg {
	case regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024:
		pk, sk := kemScheme(alg).DeriveKeyPair(seed)
		public, _ = pk.MarshalBinary() // these two never fail
		secret, _ = sk.MarshalBinary()
	case regs.MLDSA44:
		pk, sk := mldsa44.NewKeyFromSeed((*[32]byte)(seed))
		return pk.Bytes(), sk.Bytes()
	case regs.MLDSA65:
		pk, sk := mldsa65.NewKeyFromSeed((*[32]byte)(seed))
		return pk.Bytes(), sk.Bytes()
	case regs.MLDSA87:
		pk, sk := mldsa87.NewKeyFromSeed((*[32]byte)(seed))
		return pk.Bytes(), sk.Bytes()
	default: // SLH-DSA reads its seeds in the order of the specification
		pk, sk, err := slhdsa.GenerateKey(bytes.NewReader(seed), slhIDs[alg])
		if err == nil {
			public, _ = pk.MarshalBinary()
			secret, _ = sk.MarshalBinary()
		}
	}
	return public, secret
}

// publicOf computes or finds the public key that belongs to a secret one. ok is false for a secret key that is none.
func publicOf(alg regs.Alg, secret []byte) (public []byte, ok bool) {
	s, _ := regs.SizesOf(alg)
	switch alg {
	case regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024:
		return secret[len(secret)-64-s.Public : len(secret)-64], hashCheck(alg, secret)
	case regs.MLDSA44:
		var sk mldsa44.PrivateKey
		sk.Unpack((*[mldsa44.PrivateKeySize]byte)(secret))
		public = sk.Public().(*mldsa44.PublicKey).Bytes()
	case regs.MLDSA65:
		var sk mldsa65.PrivateKey
		sk.Unpack((*[mldsa65.PrivateKeySize]byte)(secret))
		public = sk.Public().(*mldsa65.PublicKey).Bytes()
	case regs.MLDSA87:
		var sk mldsa87.PrivateKey
		sk.Unpack((*[mldsa87.PrivateKeySize]byte)(secret))
		public = sk.Public().(*mldsa87.PublicKey).Bytes()
	default:
		return secret[len(secret)-s.Public:], true
	}
	// tr must be the hash of the public key.
	return public, dsaParamsOf(alg).inRange(secret) && subtle.ConstantTimeCompare(shake(64, public), secret[64:128]) == 1
}

// publicOK checks a public key on its own.
func publicOK(alg regs.Alg, public []byte) bool {
	s, _ := regs.SizesOf(alg)
	if s.Family != regs.FamilyKEM {
		return len(public) == s.Public // every encoding is a key
	}
	pk, err := kemScheme(alg).UnmarshalBinaryPublicKey(public)
	if err != nil {
		return false
	}
	again, err := pk.MarshalBinary()
	return err == nil && bytes.Equal(again, public)
}

func runSigKeygen(c *Card, j *job) verdict { return c.generate(j, regs.KeySignaturePair) }

// generate is the common part of both key generations.
func (c *Card) generate(j *job, t regs.KeyType) verdict {
	var a regs.Attributes
	stored := j.Flags&regs.FlagKeyStore != 0
	if stored {
		var v verdict
		if a, v = attributesFor(j.in[1], j.Param, t, j.Flags&regs.FlagPersist != 0); v.status != 0 {
			return v
		}
	}
	seed := j.in[0]
	if j.grant != nil {
		seed = c.random(j.grant)
		defer clear(seed)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	public, secret := derive(j.Param, seed)
	if j.fips && !c.pairwise(j.Param, public, secret) {
		clear(secret)
		return refuse(regs.RespSelfTestFail, 0)
	}
	v := verdict{out: [2][]byte{public, secret}, flags: approved(j), secret: true}
	if stored {
		v.out[1] = nil
		v.store = &storedKey{attrs: a, public: bytes.Clone(public), secret: secret}
		named(v.store)
	}
	return v
}

func signOp() *op {
	uses := func(f regs.Flags) layout {
		l := layout{src0: span(0, regs.MaxTransfer), dst0: room(1)}
		if f&regs.FlagKeyInline != 0 {
			l[src1] = room(1)
		}
		return l
	}
	return &op{
		caps: capSign, flags: regs.FlagKeyInline | regs.FlagDeterministic | regs.FlagPrehash, feature: regs.ControlCrypto,
		alg: inFamily(capSign), aux: messageAux, key: withoutInline,
		need: func(*command) keyNeed {
			return keyNeed{usage: regs.UsageSign, types: sigSecret, alg: true, uses: true}
		},
		uses: uses,
		sizes: func(m *command) layout {
			s, l := sizesOf(m), uses(m.Flags)
			if l[src1].kind != ruleUnused {
				l[src1] = exact(s.Secret)
			}
			l[dst0] = room(s.Output)
			return l
		},
		random: func(m *command) (int, regs.Quality, bool) {
			if m.Flags&regs.FlagDeterministic != 0 {
				return 0, 0, true
			}
			return 32, regs.QualityFast, true
		},
		run: runSign,
	}
}

func verifyOp() *op {
	return &op{
		caps: capSign, flags: regs.FlagKeyInline | regs.FlagPrehash, feature: regs.ControlCrypto,
		alg: inFamily(capSign), aux: messageAux, key: withoutInline,
		need: func(*command) keyNeed {
			return keyNeed{usage: regs.UsageVerify, types: sigPublic, alg: true, uses: true}
		},
		uses: fixed(layout{src0: span(0, regs.MaxTransfer), src1: room(1)}),
		sizes: func(m *command) layout {
			s := sizesOf(m)
			n := s.Output
			if m.Flags&regs.FlagKeyInline != 0 {
				n += s.Public
			}
			return layout{src0: span(0, regs.MaxTransfer), src1: exact(n)}
		},
		run: runVerify,
	}
}

// split separates the context from the message.
func split(j *job) (ctx, msg []byte) {
	n := int(j.Aux & 0xFF)
	return j.in[0][:n], j.in[0][n:]
}

// prehashed is M' of the pre-hash forms of FIPS 204 (algorithm 4).
func prehashed(id regs.HashID, ctx, msg []byte) []byte {
	h := hashes[id]
	out := append([]byte{1, byte(len(ctx))}, ctx...)
	out = append(out, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, h.arc)
	return append(out, h.sum(msg)...)
}

func runSign(c *Card, j *job) verdict {
	sk := j.in[1]
	if j.key != nil {
		sk = j.key.secret
	} else if _, ok := publicOf(j.Param, sk); !ok {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	var rnd []byte
	if j.grant != nil {
		rnd = c.random(j.grant)
		defer clear(rnd)
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	ctx, msg := split(j)
	var sig []byte
	if _, slh := slhIDs[j.Param]; slh {
		sig = slhSign(j, sk, rnd, ctx, msg)
	} else {
		sig = dsaSign(j, sk, rnd, ctx, msg)
	}
	if sig == nil {
		return refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	}
	return verdict{out: [2][]byte{sig}, flags: approved(j)}
}

func slhMessage(j *job, msg []byte) *slhdsa.Message {
	if j.Flags&regs.FlagPrehash == 0 {
		return slhdsa.NewMessage(msg)
	}
	id := regs.HashID(j.Aux >> 8)
	var ph *slhdsa.PreHash
	var err error
	switch id {
	case regs.HashSHAKE128:
		ph, err = slhdsa.NewPreHashWithXof(xof.SHAKE128)
	case regs.HashSHAKE256:
		ph, err = slhdsa.NewPreHashWithXof(xof.SHAKE256)
	default:
		ph, err = slhdsa.NewPreHashWithHash(hashes[id].std)
	}
	if err != nil {
		return nil
	}
	ph.Write(msg)
	m, err := ph.BuildMessage()
	if err != nil {
		return nil
	}
	return m
}

// slhSign signs with SLH-DSA; nil if the key is none.
func slhSign(j *job, secret, rnd, ctx, msg []byte) []byte {
	sk := slhdsa.PrivateKey{ID: slhIDs[j.Param]}
	m := slhMessage(j, msg)
	if m == nil || sk.UnmarshalBinary(secret) != nil {
		return nil
	}
	var sig []byte
	var err error
	if rnd == nil {
		sig, err = slhdsa.SignDeterministic(&sk, m, ctx)
	} else {
		sig, err = slhdsa.SignRandomized(&sk, bytes.NewReader(rnd), m, ctx)
	}
	if err != nil {
		return nil
	}
	return sig
}

// dsaSign signs with ML-DSA. circl's pure form has its own randomness; with ours it is the internal form, as pre-hash is.
func dsaSign(j *job, sk, rnd, ctx, msg []byte) []byte {
	if rnd == nil && j.Flags&regs.FlagPrehash == 0 {
		return circlSign(j.Param, sk, ctx, msg)
	}
	if rnd == nil {
		rnd = make([]byte, 32)
	}
	formatted := append(append([]byte{0, byte(len(ctx))}, ctx...), msg...)
	if j.Flags&regs.FlagPrehash != 0 {
		formatted = prehashed(regs.HashID(j.Aux>>8), ctx, msg)
	}
	return dsaParamsOf(j.Param).sign(sk, formatted, rnd)
}

func circlSign(alg regs.Alg, secret, ctx, msg []byte) []byte {
	s, _ := regs.SizesOf(alg)
	sig := make([]byte, s.Output)
	var err error
	switch alg {
	case regs.MLDSA44:
		var sk mldsa44.PrivateKey
		sk.Unpack((*[mldsa44.PrivateKeySize]byte)(secret))
		err = mldsa44.SignTo(&sk, msg, ctx, false, sig)
	case regs.MLDSA65:
		var sk mldsa65.PrivateKey
		sk.Unpack((*[mldsa65.PrivateKeySize]byte)(secret))
		err = mldsa65.SignTo(&sk, msg, ctx, false, sig)
	default:
		var sk mldsa87.PrivateKey
		sk.Unpack((*[mldsa87.PrivateKeySize]byte)(secret))
		err = mldsa87.SignTo(&sk, msg, ctx, false, sig)
	}
	if err != nil {
		return nil
	}
	return sig
}

func runVerify(c *Card, j *job) verdict {
	pk, sig := []byte(nil), j.in[1]
	if j.key != nil {
		pk = j.key.public
	} else {
		n := sizesOf(j.command).Public
		pk, sig = sig[:n], sig[n:]
	}
	if v := c.faultCheck(); v.status != 0 {
		return v
	}
	ctx, msg := split(j)
	var good bool
	if id, slh := slhIDs[j.Param]; slh {
		key := slhdsa.PublicKey{ID: id}
		m := slhMessage(j, msg)
		good = m != nil && key.UnmarshalBinary(pk) == nil && slhdsa.Verify(&key, m, sig, ctx)
	} else if j.Flags&regs.FlagPrehash != 0 {
		good = dsaParamsOf(j.Param).verify(pk, prehashed(regs.HashID(j.Aux>>8), ctx, msg), sig)
	} else {
		good = circlVerify(j.Param, pk, ctx, msg, sig)
	}
	if !good {
		return refuse(regs.RespCryptoFail, regs.DetailSigInvalid)
	}
	return verdict{flags: approved(j) | regs.RespVerified}
}

func circlVerify(alg regs.Alg, public, ctx, msg, sig []byte) bool {
	switch alg {
	case regs.MLDSA44:
		var pk mldsa44.PublicKey
		pk.Unpack((*[mldsa44.PublicKeySize]byte)(public))
		return mldsa44.Verify(&pk, msg, ctx, sig)
	case regs.MLDSA65:
		var pk mldsa65.PublicKey
		pk.Unpack((*[mldsa65.PublicKeySize]byte)(public))
		return mldsa65.Verify(&pk, msg, ctx, sig)
	}
	var pk mldsa87.PublicKey
	pk.Unpack((*[mldsa87.PublicKeySize]byte)(public))
	return mldsa87.Verify(&pk, msg, ctx, sig)
}
