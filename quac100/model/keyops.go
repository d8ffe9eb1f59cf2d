package model

import (
	"bytes"
	"crypto/rand"

	"quantavirt/quac100/regs"
)

// keyOps are the opcodes of the key store.
func keyOps() map[regs.Opcode]*op {
	handle := func(need keyNeed) func(*command) keyNeed { return func(*command) keyNeed { return need } }
	return map[regs.Opcode]*op{
		regs.OpKeyImport: keyImportOp(),
		regs.OpKeyExport: keyExportOp(),
		regs.OpKeyDelete: {caps: regs.CapKeyStore, key: always, need: handle(keyNeed{any: true}), run: runKeyDelete},
		regs.OpKeyInfo: {
			caps: regs.CapKeyStore, key: always, need: handle(keyNeed{any: true}),
			uses: fixed(layout{dst0: room(regs.KeyInfoSize)}), run: runKeyInfo,
		},
		regs.OpKeyList: {
			caps: regs.CapKeyStore,
			aux:  func(m *command) regs.Detail { return badUnless(m.Aux <= uint16(regs.KeyRaw)+1, regs.DetailBadAux) },
			uses: fixed(layout{dst0: span(0, regs.MaxTransfer)}), run: runKeyList,
		},
		regs.OpKeyGenSym: {
			caps: regs.CapKeyStore, flags: regs.FlagPersist, alg: func(m *command) bool { return m.Param == regs.AES256GCM },
			uses: fixed(layout{src1: option(regs.AttributesSize)}), stores: always,
			random: func(*command) (int, regs.Quality, bool) { return regs.AESKeySize, regs.QualityFast, true },
			run:    runKeyGenSym,
		},
		regs.OpKeyZeroizeAll: {
			caps: regs.CapKeyStore, hot: true, fence: true,
			aux: func(m *command) regs.Detail { return badUnless(m.Aux == regs.KeyZeroizeGuard, regs.DetailBadAux) },
			run: func(c *Card, _ *job) verdict {
				c.lock()
				defer c.unlock()
				c.zeroize()
				return verdict{}
			},
		},
	}
}

func badUnless(ok bool, d regs.Detail) regs.Detail {
	if ok {
		return 0
	}
	return d
}

func runKeyDelete(c *Card, j *job) verdict {
	if j.key.attrs.Flags&regs.AttrDestroyable == 0 {
		return refuse(regs.RespInvalidParam, regs.DetailKeyUsage)
	}
	c.lock()
	defer c.unlock()
	slot, ok := c.keys.lookup(j.KeyID)
	if !ok { // another command was faster
		return refuse(regs.RespKeyNotFound, 0)
	}
	gone := &c.keys.slots[slot]
	c.destroy(func(k *storedKey) bool { return k == gone })
	return verdict{}
}

func runKeyInfo(_ *Card, j *job) verdict {
	i := regs.KeyInfo{Attributes: j.key.attrs, Created: j.key.created, LastUsed: j.key.lastUsed,
		PublicLen: uint32(len(j.key.public)), SecretLen: uint32(len(j.key.secret)), Handle: j.KeyID}
	return verdict{out: [2][]byte{i.Append(nil)}}
}

func runKeyList(c *Card, j *job) verdict {
	c.lock()
	defer c.unlock()
	var out []byte
	for i := range c.keys.slots {
		k := &c.keys.slots[i]
		if k.used && (j.Aux == regs.KeyListAll || k.attrs.Type == regs.KeyType(j.Aux-1)) {
			out = le.AppendUint32(out, handleOf(i, k))
		}
	}
	if len(out) > int(j.Dst0Len) {
		v := refuse(regs.RespInvalidLen, regs.DetailDst0Len)
		v.needed = uint32(len(out))
		return v
	}
	return verdict{out: [2][]byte{out}}
}

func runKeyGenSym(c *Card, j *job) verdict {
	a, v := attributesFor(j.in[1], regs.AES256GCM, regs.KeySymmetric, j.Flags&regs.FlagPersist != 0)
	if v.status != 0 {
		return v
	}
	k := &storedKey{attrs: a, secret: c.random(j.grant)}
	named(k)
	return verdict{store: k}
}

// named gives a key its id: the digest of the public half, or for a key without one the caller's or a random one.
func named(k *storedKey) {
	switch {
	case len(k.public) > 0:
		k.attrs.KeyDigest = digestOf(k.public)
	case k.attrs.KeyDigest == [32]byte{}:
		_, _ = rand.Read(k.attrs.KeyDigest[:]) // crypto/rand does not fail
	}
}

// largestWrapped bounds a blob: the largest pair is ML-DSA-87's.
const largestWrapped = regs.WrappedSize + 2592 + 4896 + regs.GCMTagSize

func keyImportOp() *op {
	wrapped := func(m *command) bool { return m.Flags&regs.FlagWrapped != 0 }
	uses := func(f regs.Flags) layout {
		if f&regs.FlagWrapped != 0 {
			return layout{src0: span(regs.WrappedSize+regs.GCMTagSize+1, largestWrapped)}
		}
		return layout{src0: span(1, regs.MaxTransfer), src1: exact(regs.AttributesSize)}
	}
	return &op{
		caps: regs.CapKeyStore, flags: regs.FlagWrapped | regs.FlagSeed | regs.FlagPersist,
		badFlags: func(f regs.Flags) bool { return f&regs.FlagWrapped != 0 && f&regs.FlagSeed != 0 },
		alg: func(m *command) bool {
			if wrapped(m) {
				return m.Param == 0
			}
			s, known := regs.SizesOf(m.Param)
			return known && s.Cap&modelCaps != 0 || m.Param == regs.AlgRaw && m.Flags&regs.FlagSeed == 0
		},
		key:  wrapped,
		need: func(*command) keyNeed { return keyNeed{usage: regs.UsageUnwrap, types: symmetric, uses: true} },
		uses: uses,
		sizes: func(m *command) layout {
			l := uses(m.Flags)
			if !wrapped(m) {
				l[src0].ok = func(n uint32) bool { return importLength(m, int(n)) }
			}
			return l
		},
		stores: always,
		run:    runKeyImport,
	}
}

// importLength reports whether n bytes can be a key of PARAM, before its type is known.
func importLength(m *command, n int) bool {
	s, _ := regs.SizesOf(m.Param)
	switch {
	case m.Param == regs.AlgRaw:
		return n <= regs.KeyImportRawMax
	case m.Flags&regs.FlagSeed != 0:
		return s.Seed > 0 && n == s.Seed
	case s.Family == regs.FamilySymmetric:
		return n == s.Secret
	}
	return n == s.Public || n == s.Secret || n == s.Public+s.Secret
}

func runKeyImport(c *Card, j *job) verdict {
	if j.Flags&regs.FlagWrapped != 0 {
		return c.unwrap(j)
	}
	a, err := regs.ParseAttributes(j.in[1])
	if err != nil {
		return refuse(regs.RespInvalidLen, regs.DetailSrc1Len)
	}
	if v := plausible(&a, j.Param, j.Flags&regs.FlagPersist != 0); v.status != 0 {
		return v
	}
	if j.fips && a.Type != regs.KeyKEMPublic && a.Type != regs.KeySignaturePublic {
		return refuse(regs.RespInvalidParam, regs.DetailFIPSDenied)
	}
	k := &storedKey{attrs: a}
	if v := k.fill(j.in[0], j.Flags&regs.FlagSeed != 0); v.status != 0 {
		return v
	}
	named(k)
	return verdict{store: k}
}

// fill splits import material by the type of the key, and checks it.
func (k *storedKey) fill(material []byte, seed bool) verdict {
	s, _ := regs.SizesOf(k.attrs.Alg)
	t := k.attrs.Type
	badType := refuse(regs.RespInvalidParam, regs.DetailKeyType)
	badLen := refuse(regs.RespInvalidLen, regs.DetailSrc0Len)
	m := bytes.Clone(material)
	switch {
	case t == regs.KeyRaw && k.attrs.Alg == regs.AlgRaw, t == regs.KeySymmetric && s.Family == regs.FamilySymmetric:
		k.secret = m
		return verdict{}
	case t > regs.KeySignaturePair || k.attrs.Alg == regs.AlgRaw || s.Family == regs.FamilySymmetric ||
		(t <= regs.KeyKEMPair) != (s.Family == regs.FamilyKEM):
		return badType
	}
	switch half := t % 3; {
	case seed && half != 2:
		return badType
	case seed:
		k.public, k.secret = derive(k.attrs.Alg, m)
		clear(m)
		return verdict{}
	case half == 0 && len(m) == s.Public:
		k.public = m
	case half == 1 && len(m) == s.Secret:
		k.secret = m
	case half == 2 && len(m) == s.Public+s.Secret:
		k.public, k.secret = m[:s.Public:s.Public], m[s.Public:]
	default:
		return badLen
	}
	return k.verify()
}

// verify checks the halves that are there, and each against the other.
func (k *storedKey) verify() verdict {
	bad := refuse(regs.RespCryptoFail, regs.DetailKeyCheck)
	if k.public != nil && !publicOK(k.attrs.Alg, k.public) {
		return bad
	}
	if k.secret == nil {
		return verdict{}
	}
	own, ok := publicOf(k.attrs.Alg, k.secret)
	if !ok || k.public != nil && !bytes.Equal(own, k.public) {
		return bad
	}
	k.attrs.KeyDigest = digestOf(own)
	return verdict{}
}

func keyExportOp() *op {
	secret := func(m *command) bool { return m.Aux == regs.KeyExportSecret }
	return &op{
		caps: regs.CapKeyStore, flags: regs.FlagWrapped,
		aux: func(m *command) regs.Detail {
			ok := m.Aux == regs.KeyExportPublic && m.Flags&regs.FlagWrapped == 0 || secret(m)
			return badUnless(ok, regs.DetailBadAux)
		},
		key: always, src1Arg: func(m *command) bool { return secret(m) && m.Flags&regs.FlagWrapped != 0 },
		need: func(m *command) keyNeed {
			if secret(m) {
				return keyNeed{}
			}
			return keyNeed{types: withPublic, any: true}
		},
		uses: fixed(layout{dst0: room(1)}),
		key2: keyExportPolicy,
		random: func(m *command) (int, regs.Quality, bool) {
			if secret(m) {
				return regs.GCMNonceSize, regs.QualityFast, true
			}
			return 0, 0, true
		},
		run: runKeyExport,
	}
}

// keyExportPolicy is step 13 of an export, and its room, which depends on the key.
func keyExportPolicy(c *Card, j *job) verdict {
	k := j.key
	need := len(k.public)
	if j.Aux == regs.KeyExportSecret {
		f := k.attrs.Flags
		if j.Flags&regs.FlagWrapped == 0 || f&regs.AttrExtractable == 0 || f&regs.AttrSensitive != 0 || len(k.secret) == 0 {
			return refuse(regs.RespInvalidParam, regs.DetailNotExtractable)
		}
		if k.attrs.Usage&regs.UsageExport == 0 {
			return refuse(regs.RespInvalidParam, regs.DetailKeyUsage)
		}
		if j.Src1>>32 != 0 {
			return refuse(regs.RespKeyNotFound, 0)
		}
		wrap, _, v := c.take(uint32(j.Src1), keyNeed{usage: regs.UsageWrap, types: symmetric, uses: true}, 0)
		if v.status != 0 {
			return v
		}
		j.wrap = wrap
		need = regs.WrappedSize + len(k.public) + len(k.secret) + regs.GCMTagSize
	}
	if int(j.Dst0Len) < need {
		return refuse(regs.RespInvalidLen, regs.DetailDst0Len)
	}
	return verdict{}
}

func runKeyExport(c *Card, j *job) verdict {
	k := j.key
	if j.Aux == regs.KeyExportPublic {
		return verdict{out: [2][]byte{bytes.Clone(k.public)}}
	}
	h := regs.Wrapped{
		Magic: regs.WrappedMagic, Version: regs.WrappedVersion, HeaderLen: regs.WrappedSize,
		Alg: k.attrs.Alg, Type: k.attrs.Type, Usage: k.attrs.Usage, Flags: k.attrs.Flags,
		PublicLen: uint32(len(k.public)), SecretLen: uint32(len(k.secret)), WrapAlg: uint32(regs.AES256GCM),
		KeyDigest: k.attrs.KeyDigest, WrapKey: j.wrap.attrs.KeyDigest, MaxUses: k.attrs.MaxUses, Expiry: k.attrs.Expiry,
	}
	copy(h.Nonce[:], c.random(j.grant))
	plain := append(bytes.Clone(k.public), k.secret...)
	defer clear(plain)
	head := h.Append(nil)
	return verdict{out: [2][]byte{gcmOf(j.wrap.secret).Seal(head, h.Nonce[:], plain, head)}}
}

// unwrap reads a wrapped key; whatever is wrong with the blob gets the same answer.
func (c *Card) unwrap(j *job) verdict {
	bad := refuse(regs.RespCryptoFail, regs.DetailWrapBad)
	blob := j.in[0]
	h, err := regs.ParseWrapped(blob)
	if err != nil || h.Magic != regs.WrappedMagic || h.Version != regs.WrappedVersion || h.HeaderLen != regs.WrappedSize ||
		h.WrapAlg != uint32(regs.AES256GCM) || h.WrapKey != j.key.attrs.KeyDigest || h.Reserved != [8]byte{} ||
		uint64(h.PublicLen)+uint64(h.SecretLen)+regs.WrappedSize+regs.GCMTagSize != uint64(len(blob)) {
		return bad
	}
	plain, err := gcmOf(j.key.secret).Open(nil, h.Nonce[:], blob[regs.WrappedSize:], blob[:regs.WrappedSize])
	if err != nil {
		return bad
	}
	defer clear(plain)
	a := regs.Attributes{Version: regs.AttributesVersion, Alg: h.Alg, Type: h.Type, State: regs.KeyActive, Usage: h.Usage,
		Flags: h.Flags &^ regs.AttrPersistent, Expiry: h.Expiry, MaxUses: h.MaxUses, KeyDigest: h.KeyDigest}
	if j.Flags&regs.FlagPersist != 0 {
		a.Flags |= regs.AttrPersistent
	}
	k := &storedKey{attrs: a}
	if v := k.fill(plain, false); v.status != 0 || uint32(len(k.public)) != h.PublicLen {
		return bad
	}
	named(k)
	if k.attrs.KeyDigest != h.KeyDigest {
		return bad
	}
	return verdict{store: k}
}
