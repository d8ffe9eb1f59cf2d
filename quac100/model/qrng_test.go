package model

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"quantavirt/quac100/regs"
)

// seeded is a repeatable stream of samples.
func seeded() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

func (r *rig) random(n int, q regs.Quality) regs.Command {
	at, _ := r.alloc(n)
	return regs.Command{Opcode: regs.OpQRNGRead, Aux: uint16(q), Dst0: at, Dst0Len: uint32(n)}
}

// noFill stops the filling and waits until the pool is quiet.
func (r *rig) noFill() {
	r.Helper()
	r.until(regs.QRNGEntropy, ^uint32(0), regs.QRNGPoolBits)
	r.Write32(regs.QRNGControl, regs.QRNGHealthCheck|regs.QRNGConditioning)
}

func TestQRNGCosts(t *testing.T) {
	r := running(t, Config{})
	r.noFill()
	level := uint32(regs.QRNGPoolBits)
	for _, c := range []struct {
		n    int
		q    regs.Quality
		cost uint32
	}{
		{32, regs.QualityHigh, 256}, {32, regs.QualityMaximum, 512}, {32, regs.QualityFast, 0}, {1, regs.QualityStandard, 512},
		{65536, regs.QualityStandard, 512}, {65537, regs.QualityStandard, 1024}, {1 << 20, regs.QualityStandard, 8192}, {1 << 20, regs.QualityFast, 0},
		{131072 - 4096, regs.QualityHigh, 8 * (131072 - 4096)},
	} {
		r.freeAt = dataAt
		r.want(r.random(c.n, c.q), 0, 0)
		level -= c.cost
		if got := r.Read32(regs.QRNGEntropy); got != level {
			t.Fatalf("after %d bytes of quality %d the pool has %d bits, want %d", c.n, c.q, got, level)
		}
	}
	r.want(r.random(8192, regs.QualityHigh), regs.RespQRNGDepleted, 0)
	r.expect(regs.QRNGReqFail, 1)
	if s := regs.Status(r.Read32(regs.DevStatus)); s&regs.StatusQRNGReady == 0 {
		t.Errorf("status %#x", s)
	}
	r.want(r.random(32, regs.QualityFast), 0, 0)
	r.Write32(regs.QRNGControl, 0xF)
	r.until(regs.QRNGEntropy, ^uint32(0), regs.QRNGPoolBits)
	r.want(r.random(65536, regs.QualityMaximum), 0, 0)
}

func TestQRNGPopAndMarks(t *testing.T) {
	r := running(t, Config{})
	r.noFill()
	r.Write32(regs.QRNGPop, 2)
	r.expect(regs.QRNGPopSeq, 0)
	seen := map[uint32]bool{}
	for i := range uint32(100) {
		r.Write32(regs.QRNGPop, 1)
		r.expect(regs.QRNGPopSeq, i+1)
		v := r.Read32(regs.QRNGData)
		r.expect(regs.QRNGData, v) // a read changes nothing
		seen[v] = true
	}
	if len(seen) < 99 {
		t.Errorf("%d different words of 100", len(seen))
	}
	r.expect(regs.QRNGEntropy, regs.QRNGPoolBits-3200)
	r.expect(regs.QRNGBytesLo, 400)

	events := regs.CauseEntropyLow.Mask() | regs.CauseEntropyReady.Mask()
	r.Write32(regs.IntCause, events)
	r.Write32(regs.QRNGControl, regs.QRNGHealthCheck|regs.QRNGConditioning|regs.QRNGIRQOnLow|regs.QRNGIRQOnReady)
	r.Write32(regs.QRNGLowMark, regs.QRNGPoolBits-3300)
	r.want(r.random(64, regs.QualityHigh), 0, 0)
	if r.Read32(regs.IntCause)&events != regs.CauseEntropyLow.Mask() {
		t.Errorf("causes %#x below the low mark", r.Read32(regs.IntCause))
	}
	r.expect(regs.QRNGStatus, regs.QRNGReady|regs.QRNGHealthy|regs.QRNGLow)
	if s := regs.Status(r.Read32(regs.DevStatus)); s&regs.StatusEntropyLow == 0 {
		t.Errorf("status %#x", s)
	}
	r.Write32(regs.QRNGReadyMark, regs.QRNGPoolBits-64)
	r.Write32(regs.IntCause, ^uint32(0))
	r.Write32(regs.QRNGControl, 0xF|regs.QRNGIRQOnReady)
	r.until(regs.IntCause, events, regs.CauseEntropyReady.Mask())
}

func TestQRNGAlarms(t *testing.T) {
	for name, c := range map[string]struct {
		bias  Bias
		alarm uint32
		count regs.Reg
	}{
		"stuck":  {Bias{Stuck: true, Value: 0x5A}, regs.QRNGAlarmRCT, regs.QRNGRCTFails},
		"biased": {Bias{Part: 0.3, Value: 7}, regs.QRNGAlarmAPT, regs.QRNGAPTFails},
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t, Config{})
			drain := func() { r.do(r.random(4096, regs.QualityHigh)) }
			r.BiasSource(3, c.bias)
			drain()
			r.until(regs.QRNGHealth, regs.QRNGHealthLevel, regs.QRNGHealthWarning)
			r.expect(regs.QRNGSrcOK, 0xF7)
			r.expect(c.count, 1)
			if r.Read32(regs.QRNGHealth)&c.alarm == 0 {
				t.Errorf("health %#x", r.Read32(regs.QRNGHealth))
			}
			r.want(r.random(32, regs.QualityHigh), 0, 0) // the others carry on
			for s := range 5 {
				r.BiasSource(s, c.bias)
			}
			drain()
			r.until(regs.QRNGHealth, regs.QRNGHealthLevel, regs.QRNGHealthDegraded)
			r.expect(regs.ErrStatus, 0)
			for s := range regs.QRNGSources {
				r.BiasSource(s, c.bias)
			}
			drain()
			r.until(regs.QRNGHealth, regs.QRNGHealthLevel, regs.QRNGHealthFailed)
			r.expect(regs.QRNGEntropy, 0)
			r.expect(regs.QRNGSrcOK, 0)
			r.expect(regs.ErrStatus, regs.ErrQRNGHealth.Mask())
			if r.Read32(regs.IntCause)&regs.CauseQRNGHealth.Mask() == 0 {
				t.Error("no QRNG_HEALTH event")
			}
			if v := r.Read32(regs.QRNGStatus); v&(regs.QRNGReady|regs.QRNGHealthy|regs.QRNGError) != regs.QRNGError {
				t.Errorf("QRNG_STATUS %#x", v)
			}
			for q := range regs.Quality(4) {
				r.want(r.random(32, q), regs.RespQRNGHealth, 0)
			}
			dst, _ := r.alloc(8192)
			r.want(regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLKEM768, Dst0: dst, Dst0Len: 1184, Dst1: dst + 4096, Dst1Len: 2400}, regs.RespQRNGHealth, 0)
			r.want(regs.Command{Opcode: regs.OpQRNGReseed}, regs.RespQRNGHealth, 0)
			r.want(regs.Command{Opcode: regs.OpQRNGRaw, Dst0: dst, Dst0Len: 8}, regs.RespQRNGHealth, 0)
			r.Write32(regs.QRNGPop, 1)
			r.expect(regs.QRNGPopSeq, 0)

			r.Write32(regs.QRNGControl, 0xF|regs.QRNGRestart) // still biased: the start-up test fails
			r.until(regs.QRNGHealth, regs.QRNGHealthLevel|regs.QRNGAlarmStartup, regs.QRNGHealthFailed|regs.QRNGAlarmStartup)
			for s := range regs.QRNGSources {
				r.BiasSource(s, Bias{})
			}
			r.Write32(regs.QRNGControl, 0xF|regs.QRNGRestart)
			r.until(regs.QRNGStatus, regs.QRNGReady|regs.QRNGHealthy|regs.QRNGStartup, regs.QRNGReady|regs.QRNGHealthy)
			r.until(regs.QRNGEntropy, ^uint32(0), regs.QRNGPoolBits)
			r.expect(regs.QRNGHealth, 0)
			r.want(r.random(32, regs.QualityMaximum), 0, 0)
		})
	}
}

func TestQRNGHealthOpcode(t *testing.T) {
	r := running(t, Config{})
	for range 20 {
		r.want(regs.Command{Opcode: regs.OpQRNGHealth}, 0, 0)
	}
	r.noFill()
	for s := range regs.QRNGSources {
		r.BiasSource(s, Bias{Part: 0.12, Value: 0}) // too little for the continuous tests to be sure of
	}
	resp := r.do(regs.Command{Opcode: regs.OpQRNGHealth})
	want := regs.StatMonobit | regs.StatChiSquare | regs.StatMinEntropy
	if resp.Status != regs.RespQRNGHealth || uint32(resp.Detail)&want != want {
		t.Errorf("%v, failed tests %#x", resp.Status, uint32(resp.Detail))
	}
	for s := range regs.QRNGSources {
		r.BiasSource(s, Bias{Stuck: true})
	}
	if resp = r.do(regs.Command{Opcode: regs.OpQRNGHealth}); uint32(resp.Detail)&regs.StatRCT == 0 {
		t.Errorf("failed tests %#x", uint32(resp.Detail))
	}
}

func TestStatistics(t *testing.T) {
	good := make([]byte, statSamples)
	s := seeded()
	for range 200 {
		s.Read(good)
		if bad := statistics(good); bad != 0 {
			t.Fatalf("a good stream fails %#x", bad)
		}
	}
	for name, c := range map[string]struct {
		p   []byte
		bad uint32
	}{
		"zeroes":      {make([]byte, 4096), regs.StatMonobit | regs.StatLongestRun | regs.StatChiSquare | regs.StatMinEntropy},
		"alternating": {bytes.Repeat([]byte{0x55}, 4096), regs.StatRuns | regs.StatChiSquare | regs.StatMinEntropy},
		"ramp":        {katSeed(65536, 0), 0},
	} {
		if got := statistics(c.p); got&c.bad != c.bad || c.bad == 0 && got&^(regs.StatRuns|regs.StatChiSquare) != 0 {
			t.Errorf("%s fails %#x, want %#x", name, got, c.bad)
		}
	}
}

func TestRawAndReseed(t *testing.T) {
	r := running(t, Config{})
	at, out := r.alloc(regs.QRNGRawMax)
	for s := range uint16(regs.QRNGSources) {
		r.want(regs.Command{Opcode: regs.OpQRNGRaw, Aux: s, Dst0: at, Dst0Len: regs.QRNGRawMax}, 0, 0)
		if statistics(out) != 0 {
			t.Errorf("source %d", s)
		}
	}
	before := r.Read32(regs.QRNGReseeds)
	r.want(regs.Command{Opcode: regs.OpQRNGReseed}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpQRNGReseed, Src0: r.put([]byte("more")), Src0Len: 4}, 0, 0)
	r.expect(regs.QRNGReseeds, before+2)
	r.want(regs.Command{Opcode: regs.OpQRNGReseed, Src0: at, Src0Len: 257}, regs.RespInvalidLen, regs.DetailSrc0Len)
}

// The same seeded stream gives the same random output, and a card's additional input changes it.
func TestSeededStream(t *testing.T) {
	out := func() []byte {
		r := running(t, Config{Entropy: seeded()})
		r.noFill()
		c := r.random(64, regs.QualityFast)
		r.want(c, 0, 0)
		return bytes.Clone(r.ram[c.Dst0-ramAt:][:64])
	}
	if a, b := out(), out(); !bytes.Equal(a, b) {
		t.Errorf("%x\n%x", a, b)
	}
}

func TestSourceMask(t *testing.T) {
	r := running(t, Config{})
	r.Write32(regs.QRNGSrcMask, 0x03)
	r.expect(regs.QRNGSrcOK, 3)
	r.expect(regs.QRNGHealth, 0)
	r.BiasSource(0, Bias{Stuck: true})
	r.do(r.random(4096, regs.QualityHigh))
	r.until(regs.QRNGHealth, regs.QRNGHealthLevel, regs.QRNGHealthWarning)
	r.Write32(regs.QRNGSrcMask, 0)
	r.until(regs.QRNGHealth, regs.QRNGHealthLevel, regs.QRNGHealthFailed)
}

type brokenReader struct{ left int }

func (b *brokenReader) Read(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, bytes.ErrTooLarge
	}
	return seeded().Read(p)
}

// An entropy source that fails is a health failure, not zeroes.
func TestBrokenReader(t *testing.T) {
	r := newRig(t, Config{Entropy: &brokenReader{}})
	r.until(regs.DevStatus, uint32(regs.StatusError), uint32(regs.StatusError))
	r.expect(regs.SelfTestResult, uint32(regs.TestEntropyStart))
}
