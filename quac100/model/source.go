package model

import (
	"crypto/sha256"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"

	"quantavirt/quac100/regs"
)

// source is one of the raw entropy sources with its continuous health tests, NIST SP 800-90B section 4.4.
type source struct {
	bias Bias
	rng  *rand.Rand // places the samples of Bias.Part

	last   byte // repetition count test
	repeat int
	first  byte // adaptive proportion test
	seen   int
	same   int
	ones   int // of the bias watch
	bits   int
}

// alarm bits are those of QRNG_HEALTH.
type alarm = uint32

// biasBlock is the number of bits of one look at the proportion of ones, biasLimit the distance from half that is 6.5
// standard deviations.
const biasBlock = 1 << 16

var biasLimit = int(6.5 * math.Sqrt(biasBlock) / 2)

// read fills p with raw samples.
func (s *source) read(r io.Reader, p []byte) error {
	if _, err := io.ReadFull(r, p); err != nil {
		return err
	}
	switch {
	case s.bias.Stuck:
		for i := range p {
			p[i] = s.bias.Value
		}
	case s.bias.Part > 0:
		for i := range p {
			if s.rng.Float64() < s.bias.Part {
				p[i] = s.bias.Value
			}
		}
	}
	return nil
}

// check passes samples through the tests and returns the first alarm: RCT, then APT.
func (s *source) check(p []byte) alarm {
	for _, x := range p {
		if s.repeat > 0 && x == s.last {
			if s.repeat++; s.repeat >= regs.QRNGRCTCutoffVal {
				s.restart()
				return regs.QRNGAlarmRCT
			}
		} else {
			s.last, s.repeat = x, 1
		}
		if s.seen == 0 {
			s.first, s.same = x, 0
		}
		if x == s.first {
			if s.same++; s.same >= regs.QRNGAPTCutoffVal {
				s.restart()
				return regs.QRNGAlarmAPT
			}
		}
		if s.seen++; s.seen == regs.QRNGAPTWindowVal {
			s.seen = 0
		}
	}
	return 0
}

// watch counts ones and reports a block with far too many or too few.
func (s *source) watch(p []byte) (biased bool) {
	for _, x := range p {
		s.ones += bits.OnesCount8(x)
		if s.bits += 8; s.bits >= biasBlock {
			d := s.ones - biasBlock/2
			biased = biased || d > biasLimit || -d > biasLimit
			s.ones, s.bits = 0, 0
		}
	}
	return biased
}

func (s *source) restart() {
	s.repeat, s.seen, s.same, s.ones, s.bits = 0, 0, 0, 0, 0
}

// condition turns raw samples of at least 4 bits of entropy each into full-entropy output: 128 samples, 512 bits, become
// one SHA-256 value of 256 bits.
func condition(out, raw []byte) []byte {
	for len(raw) >= conditionIn {
		h := sha256.Sum256(raw[:conditionIn])
		out = append(out, h[:]...)
		raw = raw[conditionIn:]
	}
	return out
}

const conditionIn = 128
