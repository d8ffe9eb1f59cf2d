package model

import (
	"time"

	"quantavirt/quac100/regs"
)

// readEngine computes the registers of the NTT, QRNG and counter regions that are not plain storage.
func (c *Card) readEngine(r regs.Reg) (v uint32, ok bool) {
	switch r {
	case regs.NTTParamQ:
		if c.get(regs.NTTControl)&regs.NTTViewMLDSA != 0 {
			return regs.QMLDSA, true
		}
		return regs.QMLKEM, true
	case regs.NTTStatus:
		if v = c.get(r); c.get(regs.NTTErr) != 0 {
			v |= regs.NTTError
		}
		return v, true
	case regs.QRNGControl:
		if v = c.get(r); c.qrng.starting {
			v |= regs.QRNGRestart
		}
		return v, true
	case regs.QRNGStatus:
		return c.qrngStatus(), true
	case regs.QRNGEntropy:
		return uint32(len(c.qrng.pool)) * 8, true
	}
	if r >= regs.PerfHist0 && r < regs.PerfHist0+regs.HistBuckets*4 {
		return c.perf.snapHist[c.get(regs.PerfHistSel)][(r-regs.PerfHist0)/4], true
	}
	return 0, false
}

func (c *Card) qrngStatus() uint32 {
	var v uint32
	if c.qrng.ready() {
		v |= regs.QRNGReady
	}
	if c.qrngFailed() {
		v |= regs.QRNGError
	} else if !c.qrng.starting {
		v |= regs.QRNGHealthy
	}
	if c.qrngLow() {
		v |= regs.QRNGLow
	}
	if c.qrng.starting {
		v |= regs.QRNGStartup
	}
	return v
}

func (c *Card) writeQRNG(r regs.Reg, v uint32) {
	switch r {
	case regs.QRNGControl:
		if c.fips() {
			v |= regs.QRNGHealthCheck | regs.QRNGConditioning
		}
		c.set(r, v&(regs.QRNGEnable|regs.QRNGContinuous|regs.QRNGHealthCheck|regs.QRNGConditioning|
			regs.QRNGIRQOnReady|regs.QRNGIRQOnLow))
		if v&regs.QRNGRestart != 0 {
			c.restartQRNG()
		}
		c.fillC.Signal()
	case regs.QRNGPop:
		if v == 1 {
			c.popQRNG()
		}
	case regs.QRNGLowMark, regs.QRNGReadyMark:
		c.set(r, v)
		c.levels()
	case regs.QRNGSrcMask:
		if c.fips() {
			c.accessError(uint64(r))
			return
		}
		// A source that comes back has to prove itself: it stays out until the next start-up test if it had failed.
		old := c.get(r)
		c.set(r, v&0xFF)
		c.set(regs.QRNGSrcOK, c.get(regs.QRNGSrcOK)&v|v&0xFF&^old)
		c.judge(&block{}, false)
	}
}

// popQRNG moves 32 bits of the pool to QRNG_DATA.
func (c *Card) popQRNG() {
	if c.qrngFailed() || len(c.qrng.pool) < 4 {
		c.set(regs.QRNGData, 0)
		return
	}
	word := c.takePool(4)
	c.set(regs.QRNGData, le.Uint32(word))
	clear(word)
	c.set(regs.QRNGPopSeq, c.get(regs.QRNGPopSeq)+1)
	c.add64(regs.QRNGBytesLo, 4)
	c.levels()
}

func (c *Card) writeNTT(r regs.Reg, v uint32) {
	switch r {
	case regs.NTTControl:
		c.set(r, v&regs.NTTViewMLDSA)
		if v&regs.NTTRun != 0 {
			c.startSelfTest(regs.TestNTT)
		}
	case regs.NTTEngineMask:
		if v&0xFF != 0 {
			c.set(r, v&0xFF)
		}
	case regs.NTTErr:
		c.set(r, c.get(r)&^v)
	}
}

// Transforms of one ML-KEM operation with a matrix of k by k, and the cycles that the model says a transform takes:
// 256 coefficients, seven layers, 64 butterflies at a time.
const nttCycles = 256 * 7 / 2 / 64

// signTries is the average number of rounds of ML-DSA's rejection loop (FIPS 204, table 1), taken for every signature.
var signTries = map[regs.Alg]uint64{regs.MLDSA44: 4, regs.MLDSA65: 5, regs.MLDSA87: 4}

// countNTT adds the transforms of an operation to the counters.
func (c *Card) countNTT(op regs.Opcode, alg regs.Alg) {
	k := map[regs.Alg]uint64{regs.MLKEM512: 2, regs.MLKEM768: 3, regs.MLKEM1024: 4, regs.MLDSA44: 4, regs.MLDSA65: 6, regs.MLDSA87: 8}[alg]
	l := map[regs.Alg]uint64{regs.MLDSA44: 4, regs.MLDSA65: 5, regs.MLDSA87: 7}[alg]
	if k == 0 {
		return
	}
	var fwd, inv uint64
	switch tries := signTries[alg]; op {
	case regs.OpKEMKeygen: // s and e
		fwd = 2 * k
	case regs.OpKEMEncaps: // r; u and v
		fwd, inv = k, k+1
	case regs.OpKEMDecaps: // u and back, then encapsulation again
		fwd, inv = 2*k, k+2
	case regs.OpSigKeygen: // s1; t
		fwd, inv = l, k
	case regs.OpSign: // s1, s2 and t0; in each round y and c; w, z, c*s2 and c*t0
		fwd, inv = l+2*k+tries*(l+1), tries*(l+3*k)
	case regs.OpVerify: // z, c and t1; w
		fwd, inv = l+1+k, k
	default:
		return
	}
	c.lock()
	defer c.unlock()
	c.add64(regs.NTTFwdLo, fwd)
	c.add64(regs.NTTInvLo, inv)
	c.add64(regs.NTTCyclesLo, (fwd+inv)*nttCycles)
}

// perf holds the live counters; registers show the last snapshot.
type perf struct {
	since     time.Time // PERF counters begin
	ops       [regs.HistClasses]uint64
	qrngBytes uint64
	aesBytes  uint64
	ok, bad   uint64
	irqSent   uint64
	irqMerged uint64
	busy      time.Duration
	stall     time.Duration
	depthMax  uint32
	rd, wr    uint64 // DMA bytes when the counters began
	hist      [regs.HistClasses][regs.HistBuckets]uint32

	snapHist [regs.HistClasses][regs.HistBuckets]uint32
	snap     struct {
		at       time.Time
		ops      uint64
		rd, wr   uint64
		sequence uint32
	}
}

var perfClass = map[regs.Opcode]int{
	regs.OpKEMKeygen: regs.HistKEMKeygen, regs.OpKEMEncaps: regs.HistEncaps, regs.OpKEMDecaps: regs.HistDecaps,
	regs.OpSigKeygen: regs.HistSigKeygen, regs.OpSign: regs.HistSign, regs.OpVerify: regs.HistVerify,
	regs.OpQRNGRead: regs.HistQRNG, regs.OpQRNGRaw: regs.HistQRNG,
	regs.OpAESGCMEncrypt: regs.HistAES, regs.OpAESGCMDecrypt: regs.HistAES,
	regs.OpKeyImport: regs.HistKeyOps, regs.OpKeyExport: regs.HistKeyOps, regs.OpKeyDelete: regs.HistKeyOps,
	regs.OpKeyInfo: regs.HistKeyOps, regs.OpKeyList: regs.HistKeyOps, regs.OpKeyGenSym: regs.HistKeyOps,
	regs.OpKeyZeroizeAll: regs.HistKeyOps,
}

// account counts one response.
func (p *perf) account(r *result, on bool) {
	if !on {
		return
	}
	bucket := 0
	for us := r.resp.LatencyNS / 1000; us > 0 && bucket < regs.HistBuckets-1; us >>= 1 {
		bucket++
	}
	p.hist[regs.HistAll][bucket]++
	class, known := perfClass[r.cmd.Opcode]
	if known {
		p.hist[class][bucket]++
	}
	if r.resp.Status != regs.RespSuccess {
		p.bad++
		return
	}
	p.ok++
	if known {
		p.ops[class]++
	}
	if class == regs.HistQRNG {
		p.qrngBytes += uint64(r.resp.Out0Len)
	}
	if class == regs.HistAES {
		p.aesBytes += uint64(r.cmd.Src0Len)
	}
}

func (c *Card) writePerf(r regs.Reg, v uint32) {
	if r == regs.PerfHistSel {
		if v < regs.HistClasses {
			c.set(r, v)
		}
		return
	}
	c.set(r, v&regs.PerfEnable)
	if v&regs.PerfClear != 0 {
		seq := c.perf.snap.sequence
		c.perf = perf{since: time.Now(), rd: c.get64(regs.DMARdBytesLo), wr: c.get64(regs.DMAWrBytesLo)}
		c.perf.snap.sequence = seq
		c.showPerf()
	}
	if v&regs.PerfSnapshot != 0 {
		c.snapshot()
	}
}

// snapshot copies all live counters at one instant.
func (c *Card) snapshot() {
	p := &c.perf
	now := time.Now()
	rd, wr := c.get64(regs.DMARdBytesLo)-p.rd, c.get64(regs.DMAWrBytesLo)-p.wr
	if last := p.snap.at; !last.IsZero() {
		if s := now.Sub(last).Seconds(); s > 0 {
			c.set(regs.PerfOpsRate, uint32(float64(p.ok+p.bad-p.snap.ops)/s))
			c.set(regs.PerfRdRate, uint32(float64(rd-p.snap.rd)/1024/s))
			c.set(regs.PerfWrRate, uint32(float64(wr-p.snap.wr)/1024/s))
		}
	}
	p.snap.at, p.snap.ops, p.snap.rd, p.snap.wr = now, p.ok+p.bad, rd, wr
	p.snap.sequence++
	p.snapHist = p.hist
	c.showPerf()
	busy, stall := p.busy, p.stall
	if c.queue.inflight > 0 {
		busy += now.Sub(c.queue.busyFrom)
	}
	if c.queue.stalled {
		stall += now.Sub(c.queue.stallFrom)
	}
	c.set64(regs.PerfTimeLo, uint64(now.Sub(c.powerUp)))
	c.set64(regs.PerfDMARdLo, rd)
	c.set64(regs.PerfDMAWrLo, wr)
	c.set64(regs.PerfBusyNSLo, uint64(busy))
	c.set64(regs.PerfStallNSLo, uint64(stall))
}

// showPerf stores the counters in the registers of the snapshot.
func (c *Card) showPerf() {
	p := &c.perf
	for r, v := range map[regs.Reg]uint64{
		regs.PerfKEMKeygenLo: p.ops[regs.HistKEMKeygen], regs.PerfEncapsLo: p.ops[regs.HistEncaps],
		regs.PerfDecapsLo: p.ops[regs.HistDecaps], regs.PerfQRNGBytesLo: p.qrngBytes,
		regs.PerfSigKeygenLo: p.ops[regs.HistSigKeygen], regs.PerfSignLo: p.ops[regs.HistSign], regs.PerfVerifyLo: p.ops[regs.HistVerify],
		regs.PerfAESOpsLo: p.ops[regs.HistAES], regs.PerfAESBytesLo: p.aesBytes, regs.PerfKeyOpsLo: p.ops[regs.HistKeyOps],
		regs.PerfCmdsOKLo: p.ok, regs.PerfCmdsFailedLo: p.bad, regs.PerfIRQSentLo: p.irqSent, regs.PerfIRQMergedLo: p.irqMerged,
		regs.PerfDMARdLo: 0, regs.PerfDMAWrLo: 0, regs.PerfBusyNSLo: 0, regs.PerfStallNSLo: 0,
	} {
		c.set64(r, v)
	}
	c.set(regs.PerfDepthMax, p.depthMax)
	c.set(regs.PerfSeq, p.snap.sequence)
}
