package model

import (
	"crypto/sha3"
	"crypto/subtle"

	"quantavirt/quac100/regs"
)

// ML-DSA.Sign_internal and Verify_internal of FIPS 204, sections 6.2 and 6.3. The pre-hash forms need them with a message
// that circl does not let its callers form; pure signatures come from circl, whose results the tests compare with these.

const (
	dsaN = 256
	dsaQ = 8380417
	dsaD = 13
	// dsaRoot is a primitive 512th root of unity modulo dsaQ, dsaScale the inverse of 256.
	dsaRoot  = 1753
	dsaScale = 8347681
)

// dsaParams is one of the parameter sets of FIPS 204, table 1.
type dsaParams struct {
	k, l, eta, tau, omega int
	gamma1, gamma2        int32
	lambda                int // bytes of the commitment hash
}

func dsaParamsOf(a regs.Alg) *dsaParams {
	switch a {
	case regs.MLDSA44:
		return &dsaParams{4, 4, 2, 39, 80, 1 << 17, (dsaQ - 1) / 88, 32}
	case regs.MLDSA65:
		return &dsaParams{6, 5, 4, 49, 55, 1 << 19, (dsaQ - 1) / 32, 48}
	}
	return &dsaParams{8, 7, 2, 60, 75, 1 << 19, (dsaQ - 1) / 32, 64}
}

func (p *dsaParams) beta() int32 { return int32(p.tau * p.eta) }

// dsaPoly has coefficients from 0 to q-1.
type dsaPoly [dsaN]int32

// dsaZetas returns root^bitrev8(i).
func dsaZetas() (z [dsaN]int64) {
	var pow [dsaN]int64
	pow[0] = 1
	for i := 1; i < dsaN; i++ {
		pow[i] = pow[i-1] * dsaRoot % dsaQ
	}
	for i := range z {
		r := 0
		for b := range 8 {
			r |= i >> b & 1 << (7 - b)
		}
		z[i] = pow[r]
	}
	return z
}

var dsaZeta = dsaZetas()

func dsaMod(v int64) int32 {
	v %= dsaQ
	return int32(v + v>>63&dsaQ)
}

func (p *dsaPoly) ntt() {
	m := 0
	for n := 128; n >= 1; n /= 2 {
		for start := 0; start < dsaN; start += 2 * n {
			m++
			for j := start; j < start+n; j++ {
				t := dsaZeta[m] * int64(p[j+n]) % dsaQ
				p[j+n] = dsaMod(int64(p[j]) - t)
				p[j] = dsaMod(int64(p[j]) + t)
			}
		}
	}
}

func (p *dsaPoly) inverse() {
	m := dsaN
	for n := 1; n < dsaN; n *= 2 {
		for start := 0; start < dsaN; start += 2 * n {
			m--
			for j := start; j < start+n; j++ {
				t := int64(p[j])
				p[j] = dsaMod(t + int64(p[j+n]))
				p[j+n] = dsaMod(-dsaZeta[m] * (t - int64(p[j+n])) % dsaQ)
			}
		}
	}
	for j := range p {
		p[j] = dsaMod(int64(p[j]) * dsaScale)
	}
}

func (p *dsaPoly) times(q *dsaPoly) (out dsaPoly) {
	for i := range out {
		out[i] = int32(int64(p[i]) * int64(q[i]) % dsaQ)
	}
	return out
}

func (p *dsaPoly) plus(q *dsaPoly) (out dsaPoly) {
	for i := range out {
		out[i] = dsaMod(int64(p[i]) + int64(q[i]))
	}
	return out
}

func (p *dsaPoly) minus(q *dsaPoly) (out dsaPoly) {
	for i := range out {
		out[i] = dsaMod(int64(p[i]) - int64(q[i]))
	}
	return out
}

// centre is the representative of v from -(q-1)/2 to (q-1)/2.
func centre(v int32) int32 {
	if v > dsaQ/2 {
		return v - dsaQ
	}
	return v
}

// norm is the largest absolute value of the centred coefficients.
func (p *dsaPoly) norm() (most int32) {
	for _, v := range p {
		v = centre(v)
		most = max(most, v, -v)
	}
	return most
}

func norms(v []dsaPoly) (most int32) {
	for i := range v {
		most = max(most, v[i].norm())
	}
	return most
}

// decompose splits v into high and low bits (algorithm 36).
func (p *dsaParams) decompose(v int32) (high, low int32) {
	low = v % (2 * p.gamma2)
	if low > p.gamma2 {
		low -= 2 * p.gamma2
	}
	if v-low == dsaQ-1 {
		return 0, low - 1
	}
	return (v - low) / (2 * p.gamma2), low
}

// useHint corrects the high bits of v (algorithm 40).
func (p *dsaParams) useHint(h bool, v int32) int32 {
	m := (dsaQ - 1) / (2 * p.gamma2)
	high, low := p.decompose(v)
	switch {
	case h && low > 0:
		return (high + 1) % m
	case h:
		return (high + m - 1) % m
	}
	return high
}

func shake(n int, parts ...[]byte) []byte {
	h := sha3.NewSHAKE256()
	for _, p := range parts {
		h.Write(p)
	}
	out := make([]byte, n)
	h.Read(out)
	return out
}

// expandA makes the matrix, in the transformed domain (algorithm 32).
func (p *dsaParams) expandA(rho []byte) [][]dsaPoly {
	a := make([][]dsaPoly, p.k)
	for r := range a {
		a[r] = make([]dsaPoly, p.l)
		for s := range a[r] {
			x := sha3.NewSHAKE128()
			x.Write(rho)
			x.Write([]byte{byte(s), byte(r)})
			var b [3]byte
			for j := 0; j < dsaN; {
				x.Read(b[:])
				if v := int32(b[0]) | int32(b[1])<<8 | int32(b[2]&0x7F)<<16; v < dsaQ {
					a[r][s][j] = v
					j++
				}
			}
		}
	}
	return a
}

// expandMask makes the vector y (algorithm 34).
func (p *dsaParams) expandMask(seed []byte, kappa int) []dsaPoly {
	y := make([]dsaPoly, p.l)
	bits := p.zBits()
	for r := range y {
		n := kappa + r
		y[r] = p.unpackZ(shake(32*bits, seed, []byte{byte(n), byte(n >> 8)}))
	}
	return y
}

// sampleInBall makes the challenge (algorithm 29).
func (p *dsaParams) sampleInBall(seed []byte) (c dsaPoly) {
	h := sha3.NewSHAKE256()
	h.Write(seed)
	var signs [8]byte
	h.Read(signs[:])
	bits := le.Uint64(signs[:])
	var j [1]byte
	for i := dsaN - p.tau; i < dsaN; i++ {
		for h.Read(j[:]); int(j[0]) > i; {
			h.Read(j[:])
		}
		c[i] = c[j[0]]
		c[j[0]] = 1
		if bits&1 != 0 {
			c[j[0]] = dsaQ - 1
		}
		bits >>= 1
	}
	return c
}

// matrix multiplies A with a transformed vector and comes back.
func matrix(a [][]dsaPoly, v []dsaPoly) []dsaPoly {
	out := make([]dsaPoly, len(a))
	for r := range a {
		for s := range v {
			t := a[r][s].times(&v[s])
			out[r] = out[r].plus(&t)
		}
		out[r].inverse()
	}
	return out
}

func transformed(v []dsaPoly) []dsaPoly {
	out := append([]dsaPoly(nil), v...)
	for i := range out {
		out[i].ntt()
	}
	return out
}

// scaled multiplies every polynomial of a transformed vector with a transformed challenge and comes back.
func scaled(c *dsaPoly, v []dsaPoly) []dsaPoly {
	out := make([]dsaPoly, len(v))
	for i := range v {
		out[i] = c.times(&v[i])
		out[i].inverse()
	}
	return out
}

// sign signs a formatted message with an expanded key and 32 bytes of randomness (algorithm 7).
func (p *dsaParams) sign(sk, msg, rnd []byte) []byte {
	key := p.unpackSecret(sk)
	a := p.expandA(key.rho)
	s1, s2, t0 := transformed(key.s1), transformed(key.s2), transformed(key.t0)
	mu := shake(64, key.tr, msg)
	seed := shake(64, key.k, rnd, mu)
	for kappa := 0; ; kappa += p.l {
		y := p.expandMask(seed, kappa)
		w := matrix(a, transformed(y))
		tilde := shake(p.lambda, mu, p.packW1(w))
		c := p.sampleInBall(tilde)
		c.ntt()
		z := scaled(&c, s1)
		for i := range z {
			z[i] = z[i].plus(&y[i])
		}
		r := scaled(&c, s2)
		for i := range r {
			r[i] = w[i].minus(&r[i])
		}
		if norms(z) >= p.gamma1-p.beta() || p.lowNorm(r) >= p.gamma2-p.beta() {
			continue
		}
		ct0 := scaled(&c, t0)
		hints, n := p.makeHints(r, ct0)
		if norms(ct0) >= p.gamma2 || n > p.omega {
			continue
		}
		return p.packSignature(tilde, z, hints)
	}
}

func (p *dsaParams) lowNorm(v []dsaPoly) (most int32) {
	for i := range v {
		for _, x := range v[i] {
			_, low := p.decompose(x)
			most = max(most, low, -low)
		}
	}
	return most
}

// makeHints marks where adding ct0 to r changes the high bits; r is w - c*s2.
func (p *dsaParams) makeHints(r, ct0 []dsaPoly) (hints [][dsaN]bool, n int) {
	hints = make([][dsaN]bool, p.k)
	for i := range r {
		sum := r[i].plus(&ct0[i])
		for j := range sum {
			before, _ := p.decompose(r[i][j])
			after, _ := p.decompose(sum[j])
			if before != after {
				hints[i][j] = true
				n++
			}
		}
	}
	return hints, n
}

// verify checks a signature of a formatted message (algorithm 8).
func (p *dsaParams) verify(pk, msg, sig []byte) bool {
	tilde, z, hints, ok := p.unpackSignature(sig)
	if !ok || norms(z) >= p.gamma1-p.beta() {
		return false
	}
	rho, t1 := pk[:32], p.unpackT1(pk[32:])
	mu := shake(64, shake(64, pk), msg)
	c := p.sampleInBall(tilde)
	c.ntt()
	w := matrix(p.expandA(rho), transformed(z))
	for i := range t1 {
		for j := range t1[i] {
			t1[i][j] = int32(int64(t1[i][j]) << dsaD % dsaQ)
		}
	}
	ct1 := scaled(&c, transformed(t1))
	for i := range w {
		w[i] = w[i].minus(&ct1[i])
	}
	for i := range w {
		for j := range w[i] {
			w[i][j] = p.useHint(hints[i][j], w[i][j])
		}
	}
	return subtle.ConstantTimeCompare(tilde, shake(p.lambda, mu, p.packHigh(w))) == 1
}
