package model

import (
	"crypto/hmac"
	"crypto/sha256"
)

// drbg is HMAC_DRBG with SHA-256, NIST SP 800-90A section 10.1.2.
type drbg struct {
	k, v [sha256.Size]byte
}

// drbgRequest is the most that one call of generate may return, in bytes.
const drbgRequest = 1 << 16

func (d *drbg) mac(parts ...[]byte) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, d.k[:])
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

func (d *drbg) update(data ...[]byte) {
	n := 0
	for _, p := range data {
		n += len(p)
	}
	for _, sep := range []byte{0, 1} {
		d.k = d.mac(append([][]byte{d.v[:], {sep}}, data...)...)
		d.v = d.mac(d.v[:])
		if n == 0 {
			return
		}
	}
}

// instantiate starts the generator from entropy, nonce and personalisation in one string.
func (d *drbg) instantiate(seed ...[]byte) {
	clear(d.k[:])
	for i := range d.v {
		d.v[i] = 1
	}
	d.update(seed...)
}

func (d *drbg) reseed(entropy, additional []byte) { d.update(entropy, additional) }

// generate fills p, at most drbgRequest bytes.
func (d *drbg) generate(p, additional []byte) {
	if len(additional) > 0 {
		d.update(additional)
	}
	h := hmac.New(sha256.New, d.k[:])
	for len(p) > 0 {
		h.Reset()
		h.Write(d.v[:])
		h.Sum(d.v[:0])
		p = p[copy(p, d.v[:]):]
	}
	d.update(additional)
}
