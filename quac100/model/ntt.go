package model

// The number theoretic transform of ML-KEM, FIPS 203 section 4.3, as the self-test of the NTT engine runs it.

const (
	nttN = 256
	nttQ = 3329
	// nttRoot is a primitive 256th root of unity modulo nttQ, nttScale the inverse of 128.
	nttRoot  = 17
	nttScale = 3303
)

type poly [nttN]uint16

// zetas returns root^bitrev7(i) for i = 0 to 127.
func zetas() (z [128]uint32) {
	var pow [128]uint32
	pow[0] = 1
	for i := 1; i < 128; i++ {
		pow[i] = pow[i-1] * nttRoot % nttQ
	}
	for i := range z {
		r := 0
		for b := range 7 {
			r |= i >> b & 1 << (6 - b)
		}
		z[i] = pow[r]
	}
	return z
}

func (p *poly) transform(z *[128]uint32) {
	k := 1
	for n := 128; n >= 2; n /= 2 {
		for start := 0; start < nttN; start += 2 * n {
			for j := start; j < start+n; j++ {
				t := z[k] * uint32(p[j+n]) % nttQ
				p[j+n] = uint16((uint32(p[j]) + nttQ - t) % nttQ)
				p[j] = uint16((uint32(p[j]) + t) % nttQ)
			}
			k++
		}
	}
}

func (p *poly) inverse(z *[128]uint32) {
	k := 127
	for n := 2; n <= 128; n *= 2 {
		for start := 0; start < nttN; start += 2 * n {
			for j := start; j < start+n; j++ {
				t := uint32(p[j])
				p[j] = uint16((t + uint32(p[j+n])) % nttQ)
				p[j+n] = uint16(z[k] * ((uint32(p[j+n]) + nttQ - t) % nttQ) % nttQ)
			}
			k--
		}
	}
	for i := range p {
		p[i] = uint16(uint32(p[i]) * nttScale % nttQ)
	}
}

// multiply multiplies two transformed polynomials: 128 products of degree one, modulo X^2 - zeta.
func (p *poly) multiply(q *poly, z *[128]uint32) {
	for i := range 64 {
		for half := range 2 {
			at := 4*i + 2*half
			zeta := z[64+i]
			if half == 1 {
				zeta = nttQ - zeta
			}
			a0, a1, b0, b1 := uint32(p[at]), uint32(p[at+1]), uint32(q[at]), uint32(q[at+1])
			p[at] = uint16((a0*b0 + a1*b1%nttQ*zeta) % nttQ)
			p[at+1] = uint16((a0*b1 + a1*b0) % nttQ)
		}
	}
}

// schoolbook multiplies modulo X^256 + 1 without the transform.
func (p *poly) schoolbook(q *poly) (out poly) {
	var sum [nttN]int64
	for i, a := range p {
		for j, b := range q {
			v := int64(a) * int64(b)
			if i+j < nttN {
				sum[i+j] += v
			} else {
				sum[i+j-nttN] -= v
			}
		}
	}
	for i, v := range sum {
		out[i] = uint16((v%nttQ + nttQ) % nttQ)
	}
	return out
}

// nttSelfTest compares the engine's product of two fixed polynomials with the plain one, and there and back with the start.
func nttSelfTest() bool {
	z := zetas()
	var a, b poly
	for i := range a {
		a[i] = uint16(i * 13 % nttQ)
		b[i] = uint16((i*i + 7) % nttQ)
	}
	want := a.schoolbook(&b)
	x, y := a, b
	x.transform(&z)
	if x == a {
		return false
	}
	back := x
	back.inverse(&z)
	y.transform(&z)
	x.multiply(&y, &z)
	x.inverse(&z)
	return back == a && x == want
}
