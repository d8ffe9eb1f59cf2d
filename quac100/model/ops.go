package model

import (
	"fmt"
	"maps"

	"quantavirt/quac100/regs"
)

func fixed(l layout) func(regs.Flags) layout { return func(regs.Flags) layout { return l } }

func always(*command) bool { return true }

// withoutInline: the key is a handle unless it comes with the command.
func withoutInline(m *command) bool { return m.Flags&regs.FlagKeyInline == 0 }

// buildOps returns the opcodes of the card; all others answer "invalid opcode".
func buildOps() map[regs.Opcode]*op {
	ops := map[regs.Opcode]*op{
		regs.OpNOP: {hot: true},
		regs.OpEcho: {
			uses:  fixed(layout{src0: span(1, regs.EchoMax), dst0: room(1)}),
			sizes: func(m *command) layout { return layout{src0: span(1, regs.EchoMax), dst0: room(int(m.Src0Len))} },
			run:   func(_ *Card, j *job) verdict { return verdict{out: [2][]byte{append([]byte(nil), j.in[0]...)}} },
		},
		regs.OpSelfTest: {
			fence: true,
			key:   always,
			run:   runSelfTestOp,
		},
		regs.OpHealth: {
			hot:  true,
			uses: fixed(layout{dst0: room(regs.HealthSize)}),
			run:  func(c *Card, _ *job) verdict { h := c.Health(); return verdict{out: [2][]byte{h.Append(nil)}} },
		},
		regs.OpInfo: {
			hot:  true,
			uses: fixed(layout{dst0: room(regs.CardInfoSize)}),
			run:  func(c *Card, _ *job) verdict { i := c.info(); return verdict{out: [2][]byte{i.Append(nil)}} },
		},
		regs.OpKEMKeygen: kemKeygenOp(),
		regs.OpKEMEncaps: kemEncapsOp(),
		regs.OpKEMDecaps: kemDecapsOp(),

		regs.OpSigKeygen:     sigKeygenOp(),
		regs.OpSign:          signOp(),
		regs.OpVerify:        verifyOp(),
		regs.OpAESGCMEncrypt: aesEncryptOp(),
		regs.OpAESGCMDecrypt: aesDecryptOp(),
		regs.OpQRNGRead: {
			caps:    regs.CapQRNG,
			feature: regs.ControlQRNG,
			aux:     func(m *command) regs.Detail { return badUnless(m.Aux < 4, regs.DetailBadAux) },
			uses:    fixed(layout{dst0: span(1, regs.QRNGReadMax)}),
			sizes:   qrngReadSizes,
			random: func(m *command) (int, regs.Quality, bool) {
				return int(m.Dst0Len), regs.Quality(m.Aux), false
			},
			run: runQRNGRead,
		},
		regs.OpQRNGReseed: {
			caps:    regs.CapQRNG,
			feature: regs.ControlQRNG,
			uses:    fixed(layout{src0: span(0, regs.QRNGReseedMax)}),
			run:     runQRNGReseed,
		},
		regs.OpQRNGHealth: {caps: regs.CapQRNG, run: runQRNGHealth},
		regs.OpQRNGRaw: {
			caps:    regs.CapQRNG,
			feature: regs.ControlQRNG,
			aux:     func(m *command) regs.Detail { return badUnless(m.Aux < regs.QRNGSources, regs.DetailBadAux) },
			uses:    fixed(layout{dst0: span(1, regs.QRNGRawMax)}),
			denied:  always,
			run:     runQRNGRaw,
		},
	}
	maps.Copy(ops, keyOps())
	return ops
}

func runSelfTestOp(c *Card, j *job) verdict {
	mask := regs.SelfTest(j.KeyID)
	if mask == 0 {
		return refuse(regs.RespInvalidParam, regs.DetailBadAux)
	}
	c.lock()
	defer c.unlock()
	if c.manager.running || c.manager.test != 0 {
		return refuse(regs.RespBusy, 0)
	}
	failed, again := c.selfTest(mask&regs.TestsAll, false)
	if again {
		return refuse(regs.RespTimeout, regs.DetailResetting)
	}
	c.raise(regs.CauseSelfTestDone)
	if failed != 0 {
		if c.phase == phaseOK {
			c.phase = phaseError
		}
		return refuse(regs.RespSelfTestFail, regs.Detail(failed))
	}
	return verdict{}
}

// Health is the record that opcode HEALTH returns.
func (c *Card) Health() regs.Health {
	c.lock()
	defer c.unlock()
	h := regs.Health{
		TempCore: int32(c.get(regs.TempCore)), TempMem: int32(c.get(regs.TempMem)),
		TempBoard: int32(c.get(regs.TempBoard)), TempVRM: int32(c.get(regs.TempVRM)),
		CoreMV: c.get(regs.VCoreMV), AuxMV: c.get(regs.VAuxMV), PowerMW: c.get(regs.PowerMW), ClockMHz: c.clock(),
		PoolBits: uint32(len(c.qrng.pool)) * 8, SlotsUsed: uint32(c.keys.count()), SlotsTotal: regs.KeySlots, Uptime: c.uptimeSeconds(),
	}
	h.Flags = regs.HealthPCIeOK
	worse := func(s regs.HealthState) { h.State = max(h.State, s) }
	switch c.faults.ecc {
	case ECCNone:
		h.Flags |= regs.HealthMemoryOK
	case ECCCorrected:
		h.Flags |= regs.HealthMemoryCorrected
		worse(regs.HealthDegraded)
	default:
		h.Flags |= regs.HealthMemoryUncorrected
		worse(regs.HealthFailed)
	}
	switch c.thermal.state {
	case regs.ThermNormal:
		h.Flags |= regs.HealthTempOK
	case regs.ThermWarning:
		h.Flags |= regs.HealthTempHot | regs.HealthTempThrottled
		worse(regs.HealthWarning)
	default:
		h.Flags |= regs.HealthTempCritical | regs.HealthTempThrottled
		worse(regs.HealthCritical)
	}
	switch {
	case c.get(regs.VAuxMV) < auxLow:
		h.Flags |= regs.HealthPowerLow
		worse(regs.HealthCritical)
	case c.thermal.powerHigh:
		h.Flags |= regs.HealthPowerHigh
		worse(regs.HealthWarning)
	default:
		h.Flags |= regs.HealthPowerOK
	}
	switch level := c.qrngLevel(); {
	case level == regs.QRNGHealthFailed:
		h.Flags |= regs.HealthEntropyFailed
		worse(regs.HealthCritical)
	case level != regs.QRNGHealthOK:
		h.Flags |= regs.HealthEntropyOK
		worse(regs.HealthDegraded)
	case c.qrngLow():
		h.Flags |= regs.HealthEntropyLow
		worse(regs.HealthDegraded)
	default:
		h.Flags |= regs.HealthEntropyOK
	}
	c.securityHealth(&h, worse)
	return h
}

func (c *Card) securityHealth(h *regs.Health, worse func(regs.HealthState)) {
	switch {
	case c.faults.tampered:
		h.Flags |= regs.HealthSecurityTamper
		worse(regs.HealthFailed)
	case c.phase == phaseError && c.fips():
		h.Flags |= regs.HealthSecuritySelfTest | regs.HealthSecurityFIPS
		worse(regs.HealthFailed)
	case c.phase == phaseError:
		h.Flags |= regs.HealthSecuritySelfTest
		worse(regs.HealthFailed)
	default:
		h.Flags |= regs.HealthSecurityOK
	}
	if c.fwDead {
		h.Flags |= regs.HealthFWMismatch
		worse(regs.HealthFailed)
	} else {
		h.Flags |= regs.HealthFWOK
	}
}

func (c *Card) info() regs.CardInfo {
	c.lock()
	defer c.unlock()
	serial := c.get64(regs.SerialLo)
	return regs.CardInfo{
		ID: c.get(regs.DevID), Rev: c.get(regs.DevRev), Caps: regs.Caps(c.get(regs.DevCaps)), Caps2: regs.Caps2(c.get(regs.DevCaps2)),
		Limits: regs.Limits(c.get(regs.DevLimits)), FWVersion: c.get(regs.FWVersion), FWBuild: c.get(regs.FWBuild),
		FWSecVer: c.get(regs.FWSecVer), MaxXfer: c.get(regs.MaxXfer), Serial: serial,
		Model: "QUAC 100 simulator", SerialText: fmt.Sprintf("QUAC100-%016X", serial),
	}
}

func qrngReadSizes(m *command) layout {
	limit := regs.QRNGReadMax
	for cost(limit, regs.Quality(m.Aux)) > regs.QRNGPoolBits {
		limit /= 2 // costs are powers of two times the length
	}
	return layout{dst0: span(1, limit)}
}

func runQRNGRead(c *Card, j *job) verdict {
	out := c.random(j.grant)
	c.handedOut(len(out))
	v := verdict{out: [2][]byte{out}, secret: true}
	if q := regs.Quality(j.Aux); j.fips && (q == regs.QualityStandard || q == regs.QualityFast) {
		v.flags = regs.RespFIPSApproved
	}
	return v
}

// runQRNGReseed mixes pool bits and the caller's input into the generator.
func runQRNGReseed(c *Card, j *job) verdict {
	q := c.qrng
	q.gen.Lock()
	defer q.gen.Unlock()
	c.lock()
	defer c.unlock()
	switch {
	case c.qrngFailed():
		c.set(regs.QRNGReqFail, c.get(regs.QRNGReqFail)+1)
		return refuse(regs.RespQRNGHealth, 0)
	case !q.seeded || len(q.pool) < regs.QRNGReseedBits/8:
		c.set(regs.QRNGReqFail, c.get(regs.QRNGReqFail)+1)
		return refuse(regs.RespQRNGDepleted, 0)
	}
	c.reseedLocked(j.in[0])
	c.levels()
	return verdict{}
}

func runQRNGRaw(c *Card, j *job) verdict {
	c.lock()
	failed := c.qrngFailed()
	c.unlock()
	if failed {
		return refuse(regs.RespQRNGHealth, 0)
	}
	b := c.qrng.draw(1<<j.Aux, int(j.Dst0Len), false, false)
	if b.err != nil {
		return refuse(regs.RespQRNGHealth, 0)
	}
	c.handedOut(len(b.raw))
	return verdict{out: [2][]byte{b.raw}, secret: true}
}
