package model

// Encodings of FIPS 204, section 7.2.

// dsaSecret is a decoded private key.
type dsaSecret struct {
	rho, k, tr []byte
	s1, s2, t0 []dsaPoly
}

func (p *dsaParams) zBits() int {
	if p.gamma1 == 1<<17 {
		return 18
	}
	return 20
}

func (p *dsaParams) etaBits() int {
	if p.eta == 2 {
		return 3
	}
	return 4
}

// unpackBits reads 256 values of some bits each; value gives the coefficient.
func unpackBits(b []byte, bits int, value func(v int32) int32) (out dsaPoly) {
	var acc uint64
	have := 0
	for i := range out {
		for ; have < bits; have += 8 {
			acc |= uint64(b[0]) << have
			b = b[1:]
		}
		out[i] = dsaMod(int64(value(int32(acc & (1<<bits - 1)))))
		acc >>= bits
		have -= bits
	}
	return out
}

func packBits(out []byte, bits int, p *dsaPoly, value func(v int32) int32) []byte {
	var acc uint64
	have := 0
	for _, v := range p {
		acc |= uint64(value(v)) << have
		for have += bits; have >= 8; have -= 8 {
			out = append(out, byte(acc))
			acc >>= 8
		}
	}
	return out
}

func (p *dsaParams) unpackSecret(sk []byte) dsaSecret {
	s := dsaSecret{rho: sk[:32], k: sk[32:64], tr: sk[64:128]}
	rest := sk[128:]
	vector := func(n, bits int, top int32) []dsaPoly {
		v := make([]dsaPoly, n)
		for i := range v {
			v[i] = unpackBits(rest, bits, func(x int32) int32 { return top - x })
			rest = rest[32*bits:]
		}
		return v
	}
	s.s1 = vector(p.l, p.etaBits(), int32(p.eta))
	s.s2 = vector(p.k, p.etaBits(), int32(p.eta))
	s.t0 = vector(p.k, dsaD, 1<<(dsaD-1))
	return s
}

// inRange reports whether every coefficient of s1 and s2 is from -eta to eta: skDecode (algorithm 25) leaves that to its
// caller, and circl does not look.
func (p *dsaParams) inRange(sk []byte) bool {
	key := p.unpackSecret(sk)
	return max(norms(key.s1), norms(key.s2)) <= int32(p.eta)
}

func (p *dsaParams) unpackT1(b []byte) []dsaPoly {
	t := make([]dsaPoly, p.k)
	for i := range t {
		t[i] = unpackBits(b[i*320:], 10, func(v int32) int32 { return v })
	}
	return t
}

func (p *dsaParams) unpackZ(b []byte) dsaPoly {
	return unpackBits(b, p.zBits(), func(v int32) int32 { return p.gamma1 - v })
}

// packW1 encodes the high bits of w.
func (p *dsaParams) packW1(w []dsaPoly) []byte {
	high := make([]dsaPoly, len(w))
	for i := range w {
		for j, v := range w[i] {
			high[i][j], _ = p.decompose(v)
		}
	}
	return p.packHigh(high)
}

func (p *dsaParams) packHigh(high []dsaPoly) (out []byte) {
	bits := 4
	if p.gamma2 == (dsaQ-1)/88 {
		bits = 6
	}
	for i := range high {
		out = packBits(out, bits, &high[i], func(v int32) int32 { return v })
	}
	return out
}

func (p *dsaParams) packSignature(tilde []byte, z []dsaPoly, hints [][dsaN]bool) []byte {
	out := append([]byte(nil), tilde...)
	for i := range z {
		out = packBits(out, p.zBits(), &z[i], func(v int32) int32 { return p.gamma1 - centre(v) })
	}
	h := make([]byte, p.omega+p.k)
	n := 0
	for i := range hints {
		for j, set := range hints[i] {
			if set {
				h[n] = byte(j)
				n++
			}
		}
		h[p.omega+i] = byte(n)
	}
	return append(out, h...)
}

// unpackSignature refuses hints that are not in their one encoding (algorithm 21).
func (p *dsaParams) unpackSignature(sig []byte) (tilde []byte, z []dsaPoly, hints [][dsaN]bool, ok bool) {
	tilde, sig = sig[:p.lambda], sig[p.lambda:]
	z = make([]dsaPoly, p.l)
	for i := range z {
		z[i] = p.unpackZ(sig)
		sig = sig[32*p.zBits():]
	}
	hints = make([][dsaN]bool, p.k)
	n := 0
	for i := range hints {
		end := int(sig[p.omega+i])
		if end < n || end > p.omega {
			return nil, nil, nil, false
		}
		for first := n; n < end; n++ {
			if n > first && sig[n-1] >= sig[n] {
				return nil, nil, nil, false
			}
			hints[i][sig[n]] = true
		}
	}
	for ; n < p.omega; n++ {
		if sig[n] != 0 {
			return nil, nil, nil, false
		}
	}
	return tilde, z, hints, true
}
