package model

import (
	"io"
	"math/bits"
	"math/rand/v2"
	"sync"

	"quantavirt/quac100/regs"
)

// qrng is the random source. The pool and what registers show are under the card's lock; sources and generator have
// locks of their own, which are never taken under the card's.
type qrng struct {
	sample  sync.Mutex
	reader  io.Reader
	sources [regs.QRNGSources]source

	gen     sync.Mutex
	drbg    drbg
	renewed int // requests of the card itself since the last reseed

	pool     []byte // conditioned
	epoch    int    // a restart begins a new one
	starting bool
	seeded   bool
	low      bool
	readyUp  bool // above the ready mark
}

const (
	poolBytes = regs.QRNGPoolBits / 8
	// fillBlock is the number of samples taken from each source at a time.
	fillBlock = 1024
	// ownReseed is the number of internal requests between two reseeds.
	ownReseed = 256
)

func newQRNG(r io.Reader) *qrng {
	q := &qrng{reader: r, pool: make([]byte, 0, poolBytes)}
	for i := range q.sources {
		q.sources[i].rng = rand.New(rand.NewPCG(uint64(i), 0x51))
	}
	return q
}

func (c *Card) qrngLevel() uint32 { return c.get(regs.QRNGHealth) & regs.QRNGHealthLevel }

func (c *Card) qrngFailed() bool { return c.qrngLevel() == regs.QRNGHealthFailed }

func (c *Card) qrngLow() bool { return uint32(len(c.qrng.pool))*8 < c.get(regs.QRNGLowMark) }

func (q *qrng) ready() bool { return q.seeded && !q.starting }

// restartQRNG drops the pool and begins a new start-up test.
func (c *Card) restartQRNG() {
	q := c.qrng
	q.epoch++
	c.dropPool()
	q.starting, q.seeded, q.low, q.readyUp = true, false, true, false
	c.set(regs.QRNGHealth, 0)
	c.set(regs.QRNGSrcOK, c.get(regs.QRNGSrcMask))
	c.fillC.Signal()
}

func (c *Card) dropPool() {
	q := c.qrng
	clear(q.pool)
	q.pool = q.pool[:0]
}

// wantsFill reports whether the pool is to be topped up now.
func (c *Card) wantsFill() bool {
	q := c.qrng
	ctrl := c.get(regs.QRNGControl)
	if c.phase == phaseReset || c.faults.hang != HangNone || q.starting || c.qrngFailed() || ctrl&regs.QRNGEnable == 0 {
		return false
	}
	if ctrl&regs.QRNGContinuous == 0 && c.phase != phaseInit {
		return uint32(len(q.pool))*8 < c.get(regs.QRNGReadyMark)
	}
	return len(q.pool) < poolBytes || !q.seeded
}

// fillLoop tests the sources and keeps the pool full.
func (c *Card) fillLoop() {
	c.lock()
	defer c.unlock()
	for !c.stop {
		switch {
		case c.qrng.starting && c.phase != phaseReset && c.faults.hang == HangNone:
			c.fill(regs.QRNGStartupLenVal, true)
		case c.wantsFill():
			c.fill(fillBlock, false)
		default:
			c.progress.Broadcast()
			c.wait(c.fillC)
		}
	}
}

// block is what one round of sampling found.
type block struct {
	raw    []byte
	alarms [regs.QRNGSources]alarm
	biased int
	err    error
}

// draw takes n samples from each source of mask and tests them; called without the card's lock. Samples of a source that
// alarms do not count.
func (q *qrng) draw(mask uint32, n int, test, fresh bool) block {
	q.sample.Lock()
	defer q.sample.Unlock()
	var b block
	buf := make([]byte, n)
	for i := range q.sources {
		if mask>>i&1 == 0 {
			continue
		}
		s := &q.sources[i]
		if fresh {
			s.restart()
		}
		if b.err = s.read(q.reader, buf); b.err != nil {
			return b
		}
		if test {
			if b.alarms[i] = s.check(buf); b.alarms[i] != 0 {
				continue
			}
			if s.watch(buf) {
				b.biased++
			}
		}
		b.raw = append(b.raw, buf...)
	}
	clear(buf)
	return b
}

// fill samples once and adds to the pool, or ends the start-up test; called with the lock, which it gives up meanwhile.
func (c *Card) fill(n int, startup bool) {
	q := c.qrng
	epoch, ctrl := q.epoch, c.get(regs.QRNGControl)
	mask := c.get(regs.QRNGSrcOK) & c.get(regs.QRNGSrcMask)
	c.unlock()
	b := q.draw(mask, n, startup || ctrl&regs.QRNGHealthCheck != 0, startup)
	var out []byte
	if !startup && b.err == nil {
		if out = b.raw; ctrl&regs.QRNGConditioning != 0 {
			out = condition(nil, b.raw)
		}
	}
	c.lock()
	if q.epoch != epoch {
		return
	}
	c.judge(&b, startup)
	if startup {
		q.starting = false
	}
	if !c.qrngFailed() {
		c.addPool(out)
	}
	clear(b.raw)
	clear(out)
	c.progress.Broadcast()
}

func (c *Card) addPool(out []byte) {
	q := c.qrng
	q.pool = append(q.pool, out[:min(len(out), poolBytes-len(q.pool))]...)
	if !q.seeded && len(q.pool)*8 >= 2*regs.QRNGReseedBits {
		c.seed()
	}
	c.levels()
}

// seed starts the generator anew from the pool. The generator's lock is only tried: whoever holds it now is answering an
// older request, and the next block comes at once.
func (c *Card) seed() {
	q := c.qrng
	if !q.gen.TryLock() {
		return
	}
	defer q.gen.Unlock()
	q.drbg.instantiate(c.takePool(regs.QRNGReseedBits / 8))
	q.renewed = 0
	q.seeded = true
}

// takePool removes n bytes from the pool.
func (c *Card) takePool(n int) []byte {
	q := c.qrng
	rest := len(q.pool) - n
	out := append([]byte(nil), q.pool[rest:]...)
	clear(q.pool[rest:])
	q.pool = q.pool[:rest]
	return out
}

// levels compares the pool with its marks.
func (c *Card) levels() {
	q := c.qrng
	bits := uint32(len(q.pool)) * 8
	ctrl := c.get(regs.QRNGControl)
	if low := c.qrngLow(); low != q.low {
		if q.low = low; low && ctrl&regs.QRNGIRQOnLow != 0 {
			c.raise(regs.CauseEntropyLow)
		}
	}
	if up := bits > c.get(regs.QRNGReadyMark); up != q.readyUp {
		if q.readyUp = up; up && ctrl&regs.QRNGIRQOnReady != 0 {
			c.raise(regs.CauseEntropyReady)
		}
	}
	if c.wantsFill() {
		c.fillC.Signal()
	}
}

// judge draws the consequences of what the tests found.
func (c *Card) judge(b *block, startup bool) {
	health := c.get(regs.QRNGHealth)
	level, alarms := health&regs.QRNGHealthLevel, health&^regs.QRNGHealthLevel
	ok := c.get(regs.QRNGSrcOK)
	for i, a := range b.alarms {
		switch {
		case a == 0:
			continue
		case a == regs.QRNGAlarmRCT:
			c.inc(regs.QRNGRCTFails)
		default:
			c.inc(regs.QRNGAPTFails)
		}
		ok &^= 1 << i
		alarms |= a
		level = max(level, regs.QRNGHealthWarning)
		if startup {
			alarms |= regs.QRNGAlarmStartup
			level = regs.QRNGHealthFailed
		}
	}
	if b.biased > 0 {
		for range b.biased {
			c.inc(regs.QRNGBiasCount)
		}
		alarms |= regs.QRNGAlarmBias
		level = max(level, regs.QRNGHealthWarning)
	}
	if b.err != nil {
		level = regs.QRNGHealthFailed
	}
	c.set(regs.QRNGSrcOK, ok)
	mask := c.get(regs.QRNGSrcMask)
	switch n := bits.OnesCount32(ok & mask); {
	case n == 0:
		level = regs.QRNGHealthFailed
		alarms |= regs.QRNGAlarmSources
	case 2*n < bits.OnesCount32(mask):
		level = max(level, regs.QRNGHealthDegraded)
		alarms |= regs.QRNGAlarmSources
	}
	c.setQRNGHealth(level, alarms)
}

func (c *Card) setQRNGHealth(level uint32, alarms alarm) {
	old := c.get(regs.QRNGHealth)
	c.set(regs.QRNGHealth, level|alarms)
	if level|alarms == old {
		return
	}
	c.raise(regs.CauseQRNGHealth)
	if level == regs.QRNGHealthFailed && old&regs.QRNGHealthLevel != level {
		c.dropPool()
		c.qrng.seeded = false
		c.fail(regs.ErrQRNGHealth, uint16(regs.QRNGHealth), 0, 0)
		c.levels()
	}
}

// grant is the pool's part of the answer to a request.
type grant struct {
	n       int
	quality regs.Quality
	bits    []byte // taken from the pool
}

// cost is what a request of n bytes takes from the pool, in bits.
func cost(n int, q regs.Quality) int {
	switch q {
	case regs.QualityStandard:
		return (n + regs.QRNGReseedBytes - 1) / regs.QRNGReseedBytes * regs.QRNGReseedBits
	case regs.QualityHigh:
		return n * 8
	case regs.QualityMaximum:
		return n * 16
	}
	return 0
}

// reserve takes the pool's part of n random bytes, or says why there are none.
func (c *Card) reserve(n int, quality regs.Quality) (*grant, regs.RespStatus) {
	c.lock()
	defer c.unlock()
	need := cost(n, quality) / 8
	switch {
	case c.qrngFailed():
		c.set(regs.QRNGReqFail, c.get(regs.QRNGReqFail)+1)
		return nil, regs.RespQRNGHealth
	case !c.qrng.seeded || len(c.qrng.pool) < need:
		c.set(regs.QRNGReqFail, c.get(regs.QRNGReqFail)+1)
		return nil, regs.RespQRNGDepleted
	}
	g := &grant{n: n, quality: quality, bits: c.takePool(need)}
	c.levels()
	return g, regs.RespSuccess
}

// own reserves randomness for the card itself: from the generator, which is reseeded now and then if the pool has bits.
func (c *Card) own(n int) (*grant, regs.RespStatus) {
	g, status := c.reserve(n, regs.QualityFast)
	if status != regs.RespSuccess {
		return nil, status
	}
	c.qrng.gen.Lock()
	defer c.qrng.gen.Unlock()
	if c.qrng.renewed++; c.qrng.renewed >= ownReseed {
		c.lock()
		defer c.unlock()
		if len(c.qrng.pool) >= regs.QRNGReseedBits/8 {
			c.reseedLocked(nil)
			c.levels()
		}
	}
	return g, status
}

// reseedLocked mixes 512 pool bits into the generator; both locks are held.
func (c *Card) reseedLocked(additional []byte) {
	seed := c.takePool(regs.QRNGReseedBits / 8)
	c.qrng.drbg.reseed(seed, additional)
	clear(seed)
	c.qrng.renewed = 0
	c.set(regs.QRNGReseeds, c.get(regs.QRNGReseeds)+1)
}

// random makes the bytes of a grant.
func (c *Card) random(g *grant) []byte {
	q := c.qrng
	out := make([]byte, g.n)
	switch g.quality {
	case regs.QualityHigh:
		copy(out, g.bits)
	case regs.QualityMaximum:
		for i := range out {
			out[i] = g.bits[i] ^ g.bits[g.n+i]
		}
	default:
		q.gen.Lock()
		reseeds := 0
		for rest := out; len(rest) > 0; {
			n := min(len(rest), drbgRequest)
			if g.quality == regs.QualityStandard {
				seed := g.bits[reseeds*regs.QRNGReseedBits/8:][:regs.QRNGReseedBits/8]
				q.drbg.reseed(seed, nil)
				reseeds++
			}
			q.drbg.generate(rest[:n], nil)
			rest = rest[n:]
		}
		q.gen.Unlock()
		c.lock()
		c.set(regs.QRNGReseeds, c.get(regs.QRNGReseeds)+uint32(reseeds))
		c.unlock()
	}
	clear(g.bits)
	return out
}

// handedOut counts bytes that left the card.
func (c *Card) handedOut(n int) {
	c.lock()
	defer c.unlock()
	c.add64(regs.QRNGBytesLo, uint64(n))
}
