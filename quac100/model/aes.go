package model

import (
	"crypto/aes"
	"crypto/cipher"

	"quantavirt/quac100/regs"
)

// gcmOf is AES-256-GCM under a key of 32 bytes.
func gcmOf(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // lengths are checked before
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// aesOp describes both directions; fixed is what stands before the additional data besides the key.
func aesOp(op0 op, usage regs.Usage, nonce func(m *command) bool, text, out func(n uint32) rule) *op {
	sizes := func(m *command) layout {
		head := 0
		if m.Flags&regs.FlagKeyInline != 0 {
			head += regs.AESKeySize
		}
		if nonce(m) {
			head += regs.GCMNonceSize
		}
		l := layout{src0: text(m.Src0Len), src1: span(head, head+regs.GCMMaxAAD), dst0: out(m.Src0Len)}
		if !nonce(m) {
			l[dst1] = room(regs.GCMNonceSize)
		}
		return l
	}
	op0.caps, op0.flags, op0.feature = regs.CapAESGCM, regs.FlagKeyInline, regs.ControlCrypto
	op0.alg = func(m *command) bool { return m.Param == regs.AES256GCM }
	op0.key = withoutInline
	op0.need = func(*command) keyNeed { return keyNeed{usage: usage, types: symmetric, alg: true, uses: true} }
	op0.usesOf, op0.sizes, op0.inPlace = sizes, sizes, true
	return &op0
}

func aesEncryptOp() *op {
	device := func(m *command) bool { return m.Aux == regs.GCMDeviceNonce }
	return aesOp(op{
		aux: func(m *command) regs.Detail { return badUnless(m.Aux <= regs.GCMDeviceNonce, regs.DetailBadAux) },
		key2: func(c *Card, j *job) verdict {
			if j.key == nil || !device(j.command) {
				return verdict{}
			}
			k := &c.keys.slots[j.keySlot]
			if k.nonces >= regs.KeyMaxDeviceNonces {
				return refuse(regs.RespInvalidParam, regs.DetailQuota)
			}
			k.nonces++
			return verdict{}
		},
		random: func(m *command) (int, regs.Quality, bool) {
			if device(m) {
				return regs.GCMNonceSize, regs.QualityFast, true
			}
			return 0, 0, true
		},
		run: runAESEncrypt,
	}, regs.UsageEncrypt, func(m *command) bool { return !device(m) },
		func(uint32) rule { return span(0, regs.MaxTransfer-regs.GCMTagSize) },
		func(n uint32) rule { return room(int(min(n, regs.MaxTransfer)) + regs.GCMTagSize) })
}

func aesDecryptOp() *op {
	return aesOp(op{
		aux: func(m *command) regs.Detail { return badUnless(m.Aux == 0, regs.DetailBadAux) },
		run: runAESDecrypt,
	}, regs.UsageDecrypt, func(*command) bool { return true },
		func(uint32) rule { return span(regs.GCMTagSize, regs.MaxTransfer) },
		func(n uint32) rule { return room(int(max(n, regs.GCMTagSize)) - regs.GCMTagSize) })
}

// aesKey takes the key, and leaves what follows it in SRC1.
func aesKey(j *job) (key, rest []byte) {
	if j.key != nil {
		return j.key.secret, j.in[1]
	}
	return j.in[1][:regs.AESKeySize], j.in[1][regs.AESKeySize:]
}

func runAESEncrypt(c *Card, j *job) verdict {
	key, aad := aesKey(j)
	var nonce []byte
	v := verdict{}
	if j.grant != nil {
		nonce = c.random(j.grant)
		v.out[1], v.flags = nonce, approved(j)
	} else {
		nonce, aad = aad[:regs.GCMNonceSize], aad[regs.GCMNonceSize:]
	}
	if f := c.faultCheck(); f.status != 0 {
		return f
	}
	v.out[0] = gcmOf(key).Seal(nil, nonce, j.in[0], aad)
	return v
}

func runAESDecrypt(c *Card, j *job) verdict {
	key, rest := aesKey(j)
	if f := c.faultCheck(); f.status != 0 {
		return f
	}
	plain, err := gcmOf(key).Open(nil, rest[:regs.GCMNonceSize], j.in[0], rest[regs.GCMNonceSize:])
	if err != nil {
		return refuse(regs.RespCryptoFail, regs.DetailTagMismatch)
	}
	return verdict{out: [2][]byte{plain}, flags: approved(j), secret: true}
}
