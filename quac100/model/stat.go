package model

import (
	"math"
	"math/bits"

	"quantavirt/quac100/regs"
)

// statSamples is the number of raw samples that QRNG_HEALTH looks at, over all sources in use.
const statSamples = 1 << 15

// runQRNGHealth tests fresh raw samples of every source in use. All limits are about 6.5 standard deviations away: a
// healthy source fails one of the tests less than once in a thousand million runs.
func runQRNGHealth(c *Card, _ *job) verdict {
	c.lock()
	mask := c.get(regs.QRNGSrcMask)
	failed := c.qrngFailed()
	c.unlock()
	var bad uint32
	b := c.qrng.draw(mask, statSamples/regs.QRNGSources, true, false)
	for _, a := range b.alarms {
		switch a {
		case regs.QRNGAlarmRCT:
			bad |= regs.StatRCT
		case regs.QRNGAlarmAPT:
			bad |= regs.StatAPT
		}
	}
	if len(b.raw) > 0 {
		bad |= statistics(b.raw)
	}
	clear(b.raw)
	if bad != 0 || failed || b.err != nil {
		return refuse(regs.RespQRNGHealth, regs.Detail(bad))
	}
	return verdict{}
}

// statistics returns the failed tests of regs.Stat*, RCT and APT excepted.
func statistics(p []byte) (bad uint32) {
	n := float64(len(p) * 8)
	var ones, runs, run, longest int
	var hist [256]int
	last := byte(2)
	for _, x := range p {
		hist[x]++
		ones += bits.OnesCount8(x)
		for i := range 8 {
			bit := x >> i & 1
			if bit != last {
				runs, run, last = runs+1, 0, bit
			}
			run++
			longest = max(longest, run)
		}
	}
	if math.Abs(2*float64(ones)-n) > 6.5*math.Sqrt(n) {
		bad |= regs.StatMonobit
	}
	part := float64(ones) / n
	expect := 2 * n * part * (1 - part)
	if math.Abs(float64(runs)-expect) > 6.5*2*math.Sqrt(n)*part*(1-part) {
		bad |= regs.StatRuns
	}
	if float64(longest) > math.Log2(n)+32 {
		bad |= regs.StatLongestRun
	}
	chi, most := 0.0, 0
	each := float64(len(p)) / 256
	for _, k := range hist {
		d := float64(k) - each
		chi += d * d / each
		most = max(most, k)
	}
	if chi > 255+8*math.Sqrt(2*255) {
		bad |= regs.StatChiSquare
	}
	// Most common value estimate, SP 800-90B section 6.3.1, against the 4 bits that the cutoffs assume.
	top := float64(most) / float64(len(p))
	top += 2.576 * math.Sqrt(top*(1-top)/float64(len(p)-1))
	if -math.Log2(min(1, top)) < 4 {
		bad |= regs.StatMinEntropy
	}
	return bad
}
