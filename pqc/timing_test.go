package pqc

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The method is that of "Dude, is my code constant time?" (Reparaz, Balasch,
// Verbauwhede, 2017): an operation runs on inputs of two classes in random
// order, and Welch's t-test tells whether the times of the classes differ. Of
// each run it is made on all times, and on those below some percentiles, as
// interrupts make long ones longer. |t| above 10 is a difference beyond doubt;
// without one, t is a normal variable and 10 does not happen.
const leak = 10

// measurements of each class pair: 20,000, or 1,000,000 with QV_SOAK.
func measurements() int {
	if full() {
		return 1_000_000
	}
	return 20_000
}

// classes times call on inputs of two classes and returns the largest |t|. Both
// are copied to one buffer first, so that neither is nearer in a cache.
func classes(inputs [2][][]byte, call func(input []byte)) float64 {
	n := measurements()
	random := rand.New(rand.NewPCG(1, 2))
	input := make([]byte, len(inputs[0][0]))
	times := [2][]float64{make([]float64, 0, n), make([]float64, 0, n)}
	for i := range n + n/10 {
		class := random.IntN(2)
		copy(input, inputs[class][random.IntN(len(inputs[class]))])
		started := time.Now()
		call(input)
		took := time.Since(started)
		if i >= n/10 { // warm by now
			times[class] = append(times[class], float64(took))
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(times[0], times[1])))
	largest := 0.0
	for _, percentile := range []float64{0.25, 0.5, 0.75, 0.9, 0.99, 1} {
		limit := all[int(percentile*float64(len(all)-1))]
		a, b := below(times[0], limit), below(times[1], limit)
		if min(len(a), len(b)) < 100 {
			continue // the classes lie apart, which the larger percentiles show
		}
		largest = max(largest, math.Abs(welch(a, b)))
	}
	return largest
}

func below(times []float64, limit float64) (out []float64) {
	for _, t := range times {
		if t <= limit {
			out = append(out, t)
		}
	}
	return out
}

// welch is the t of two samples with variances of their own.
func welch(a, b []float64) float64 {
	mean := func(s []float64) (m, v float64) {
		for _, x := range s {
			m += x
		}
		m /= float64(len(s))
		for _, x := range s {
			v += (x - m) * (x - m)
		}
		return m, v / float64(len(s)-1)
	}
	ma, va := mean(a)
	mb, vb := mean(b)
	if va == 0 && vb == 0 {
		return 0 // the clock is too coarse for these
	}
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

// flipped are copies of inputs with one bit changed in a byte.
func flipped(inputs [][]byte, at func(size int) int) [][]byte {
	out := make([][]byte, len(inputs))
	for i, in := range inputs {
		out[i] = slices.Clone(in)
		out[i][at(len(in))] ^= 1
	}
	return out
}

func first(int) int     { return 0 }
func last(size int) int { return size - 1 }

// A rejected ciphertext takes as long as a good one, wherever it is wrong.
func TestTimingDecapsulation(t *testing.T) {
	ctx, s := context.Background(), testSoftware(t)
	for _, a := range []Algorithm{MLKEM512, MLKEM768, MLKEM1024} {
		p, _ := a.Params()
		public, secret := generate(t, s, a)
		e, err := s.Encapsulator(ctx, a, public)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Decapsulator(ctx, a, secret)
		if err != nil {
			t.Fatal(err)
		}
		shared := make([]byte, p.Shared)
		good := make([][]byte, 256)
		for i := range good {
			good[i] = make([]byte, p.Output)
			if err := e.Encapsulate(ctx, good[i], shared); err != nil {
				t.Fatal(err)
			}
		}
		for name, inputs := range map[string][2][][]byte{
			"good or rejected":         {good, flipped(good, first)},
			"wrong in front or behind": {flipped(good, first), flipped(good, last)},
		} {
			got := classes(inputs, func(ciphertext []byte) { _ = d.Decapsulate(ctx, shared, ciphertext) })
			t.Logf("%-12s %-25s |t| = %.1f", a, name, got)
			if !(got <= leak) {
				t.Errorf("%s: the time tells %s: |t| = %.1f", a, name, got)
			}
		}
	}
}

// A wrong tag takes as long wherever it is wrong.
func TestTimingTag(t *testing.T) {
	ctx, s := context.Background(), testSoftware(t)
	for _, a := range []Algorithm{AES256GCM, ChaCha20Poly1305} {
		p, _ := a.Params()
		k, err := s.AEAD(ctx, a, counting(p.SecretKey))
		if err != nil {
			t.Fatal(err)
		}
		nonce, additional := make([]byte, p.Nonce), make([]byte, 64)
		sealed := make([][]byte, 256)
		for i := range sealed {
			if sealed[i], err = k.Seal(ctx, nil, nonce, counting(64 + i)[i:], additional); err != nil {
				t.Fatal(err)
			}
		}
		front := func(size int) int { return size - p.Output }
		got := classes([2][][]byte{flipped(sealed, front), flipped(sealed, last)}, func(in []byte) {
			_, _ = k.Open(ctx, nil, nonce, in, additional)
		})
		t.Logf("%-17s tag wrong in front or behind  |t| = %.1f", a, got)
		if !(got <= leak) {
			t.Errorf("%s: the time tells where the tag is wrong: |t| = %.1f", a, got)
		}
	}
}

// The method finds a comparison that ends at the first difference.
func TestTimingFindsALeak(t *testing.T) {
	want := counting(1088)
	equal := 0
	leaky := func(in []byte) {
		for i := range in {
			if in[i] != want[i] {
				return
			}
		}
		equal++
	}
	inputs := [][]byte{want}
	got := classes([2][][]byte{flipped(inputs, first), flipped(inputs, last)}, leaky)
	t.Logf("a comparison that leaks: |t| = %.1f", got)
	if !(got > leak) {
		t.Error("the leak is not found")
	}
}
