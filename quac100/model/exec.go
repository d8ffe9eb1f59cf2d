package model

import (
	"errors"
	"math/bits"
	"time"

	"quantavirt/quac100/regs"
)

// ruleKind says what a length field of a command must be.
type ruleKind uint8

const (
	ruleUnused ruleKind = iota
	ruleExact           // equal to lo
	ruleRoom            // at least lo
	ruleRange           // lo to hi
)

type rule struct {
	kind   ruleKind
	lo, hi uint32
}

func exact(n int) rule     { return rule{ruleExact, uint32(n), 0} }
func room(n int) rule      { return rule{ruleRoom, uint32(n), 0} }
func span(lo, hi int) rule { return rule{ruleRange, uint32(lo), uint32(hi)} }

func (r rule) allows(n uint32) bool {
	switch r.kind {
	case ruleExact:
		return n == r.lo
	case ruleRoom:
		return n >= r.lo && n <= regs.MaxTransfer
	case ruleRange:
		return n >= r.lo && n <= r.hi
	}
	return true // unused fields have their own check
}

// Buffers of a command, in the order of the fields.
const (
	src0 = iota
	src1
	dst0
	dst1
	buffers
)

type layout [buffers]rule

// feature is a switch of DEV_CONTROL that an operation depends on.
type feature = regs.Control

// op describes how an opcode is checked and done.
type op struct {
	caps    regs.Caps  // one of them must be present; 0 for none
	flags   regs.Flags // allowed besides FENCE, IRQ and SG
	fence   bool
	hot     bool // allowed when the card is too hot
	feature feature
	alg     bool // PARAM holds an algorithm
	aux     func(aux uint16) bool
	key     func(m *command) bool // whether KEY_ID is used
	uses    func(f regs.Flags) layout
	sizes   func(m *command) layout // nil if uses says it all
	denied  func(m *command) bool   // in FIPS mode
	random  func(m *command) (n int, q regs.Quality, own bool)
	run     func(c *Card, j *job) verdict
}

// job is a command being executed.
type job struct {
	*command
	lists [buffers][]segment
	in    [2][]byte
	grant *grant
	fips  bool
}

// verdict is what an operation came to. Outputs are written only if status is 0.
type verdict struct {
	status regs.RespStatus
	detail regs.Detail
	out    [2][]byte
	flags  regs.RespFlags
	secret bool // outputs are wiped after writing
}

func refuse(s regs.RespStatus, d regs.Detail) verdict { return verdict{status: s, detail: d} }

// execute checks and does a command, in the order of the specification's section 13.3: the first failure wins.
func (c *Card) execute(m *command) regs.Response {
	begin := time.Now()
	j := &job{command: m}
	v := c.check(j)
	if v.status == 0 {
		v = c.perform(j)
	}
	c.linger(m, begin)
	if v.status == 0 && !c.claim(m) {
		v.wipe()
		return regs.Response{Status: regs.RespTimeout} // never seen: the command has its answer
	}
	r := regs.Response{Status: v.status, Detail: v.detail, Flags: v.flags}
	if v.status == 0 {
		for i, out := range v.out {
			if err := c.store(m, j.lists[dst0+i], out); err != nil {
				v.wipe()
				return regs.Response{Status: regs.RespDMAError, Detail: regs.DetailDstFault}
			}
		}
		r.Out0Len, r.Out1Len = uint32(len(v.out[0])), uint32(len(v.out[1]))
		if m.op.alg {
			r.KeyID = m.KeyID
		}
		c.countNTT(m.Opcode, m.Param)
	}
	v.wipe()
	return r
}

func (v *verdict) wipe() {
	if v.secret {
		clear(v.out[0])
		clear(v.out[1])
	}
}

// linger makes a command take as long as an injected latency says, twice as long while throttled.
func (c *Card) linger(m *command, begin time.Time) {
	c.lock()
	f, throttled := c.faults.latency, c.thermal.throttled
	engines := bits.OnesCount32(c.get(regs.NTTEngineMask))
	c.unlock()
	if f == nil {
		return
	}
	d := f(m.Opcode)
	if throttled {
		d *= 2
	}
	if m.op != nil && m.op.alg {
		d = d * regs.NTTEngines / time.Duration(engines)
	}
	if d -= time.Since(begin); d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.cancel:
	}
}

// check does steps 1 to 17.
func (c *Card) check(j *job) verdict {
	m := j.command
	if v := c.checkState(m); v.status != 0 {
		return v
	}
	if m.op == nil || m.op.caps != 0 && modelCaps&m.op.caps == 0 {
		return refuse(regs.RespInvalidOpcode, 0)
	}
	var l layout
	if m.op.uses != nil {
		l = m.op.uses(m.Flags)
	}
	if v := checkFields(m, l); v.status != 0 {
		return v
	}
	if m.op.sizes != nil {
		l = m.op.sizes(m)
	}
	if v := checkLengths(m, l); v.status != 0 {
		return v
	}
	if v := c.checkPolicy(j); v.status != 0 {
		return v
	}
	if overlaps(m, l) {
		return refuse(regs.RespInvalidParam, regs.DetailOverlap)
	}
	if v := c.gatherAll(j, l); v.status != 0 {
		return v
	}
	return c.checkRandom(j)
}

// checkState does steps 1 to 4.
func (c *Card) checkState(m *command) verdict {
	c.lock()
	defer c.unlock()
	switch {
	case c.phase == phaseError && !c.fwDead:
		return refuse(regs.RespSelfTestFail, regs.DetailSelfTestRequired)
	case c.fwDead:
		return refuse(regs.RespFWError, 0)
	case c.phase == phaseZeroized:
		return refuse(regs.RespSelfTestFail, regs.DetailZeroized)
	case c.thermal.state >= regs.ThermCritical && (m.op == nil || !m.op.hot):
		return refuse(regs.RespOverTemp, regs.DetailThermal)
	}
	return verdict{}
}

// checkFields does steps 6 to 9.
func checkFields(m *command, l layout) verdict {
	allowed := regs.FlagFence | regs.FlagIRQ | m.op.flags
	for i, r := range l {
		if r.kind != ruleUnused {
			allowed |= regs.FlagSGSrc0 << i
		}
	}
	if m.Flags&^allowed != 0 {
		return refuse(regs.RespInvalidParam, regs.DetailUnknownFlag)
	}
	addrs := [buffers]uint64{m.Src0, m.Src1, m.Dst0, m.Dst1}
	lens := [buffers]uint32{m.Src0Len, m.Src1Len, m.Dst0Len, m.Dst1Len}
	dirty := !m.op.alg && m.Param != 0 || m.op.aux == nil && m.Aux != 0 || (m.op.key == nil || !m.op.key(m)) && m.KeyID != 0
	for i, r := range l {
		dirty = dirty || r.kind == ruleUnused && (addrs[i] != 0 || lens[i] != 0)
	}
	if dirty {
		return refuse(regs.RespInvalidParam, regs.DetailReservedNonzero)
	}
	if m.op.alg {
		if s, ok := regs.SizesOf(m.Param); !ok || s.Cap&m.op.caps == 0 || s.Cap&modelCaps == 0 {
			return refuse(regs.RespInvalidParam, regs.DetailBadParamSet)
		}
	}
	if m.op.aux != nil && !m.op.aux(m.Aux) {
		return refuse(regs.RespInvalidParam, regs.DetailBadAux)
	}
	return verdict{}
}

// checkLengths does step 10.
func checkLengths(m *command, l layout) verdict {
	for i, n := range [buffers]uint32{m.Src0Len, m.Src1Len, m.Dst0Len, m.Dst1Len} {
		if !l[i].allows(n) {
			return refuse(regs.RespInvalidLen, regs.DetailSrc0Len+regs.Detail(i))
		}
	}
	return verdict{}
}

// checkPolicy does steps 11 and 12. Without a key store no handle is known.
func (c *Card) checkPolicy(j *job) verdict {
	m := j.command
	c.lock()
	defer c.unlock()
	j.fips = c.fips()
	sgOff := c.get(regs.DMAControl)&regs.DMASG == 0 && m.Flags&regs.FlagsSG != 0
	switch {
	case m.op.feature&^c.control() != 0 || sgOff:
		return refuse(regs.RespInvalidParam, regs.DetailFeatureOff)
	case j.fips && (m.Flags&regs.FlagSeed != 0 || m.op.denied != nil && m.op.denied(m)):
		return refuse(regs.RespInvalidParam, regs.DetailFIPSDenied)
	case m.op.alg && m.op.key != nil && m.op.key(m):
		return refuse(regs.RespKeyNotFound, 0)
	}
	return verdict{}
}

// overlaps does step 15: outputs must not touch each other or an input. Lists are exempt, since inputs are copied first.
func overlaps(m *command, l layout) bool {
	type area struct{ from, n uint64 }
	var a [buffers]area
	for i, x := range [buffers]area{{m.Src0, uint64(m.Src0Len)}, {m.Src1, uint64(m.Src1Len)}, {m.Dst0, uint64(m.Dst0Len)}, {m.Dst1, uint64(m.Dst1Len)}} {
		if l[i].kind != ruleUnused && m.Flags&(regs.FlagSGSrc0<<i) == 0 {
			a[i] = x
		}
	}
	meet := func(x, y area) bool {
		return x.n > 0 && y.n > 0 && (x.from-y.from < y.n || y.from-x.from < x.n)
	}
	return meet(a[dst0], a[dst1]) || meet(a[dst0], a[src0]) || meet(a[dst0], a[src1]) || meet(a[dst1], a[src0]) || meet(a[dst1], a[src1])
}

// gatherAll does step 16.
func (c *Card) gatherAll(j *job, l layout) verdict {
	m := j.command
	for i, x := range [buffers]struct {
		addr uint64
		n    uint32
	}{{m.Src0, m.Src0Len}, {m.Src1, m.Src1Len}, {m.Dst0, m.Dst0Len}, {m.Dst1, m.Dst1Len}} {
		if l[i].kind == ruleUnused {
			continue
		}
		list, err := c.gather(m, x.addr, x.n, m.Flags&(regs.FlagSGSrc0<<i) != 0)
		switch {
		case errors.Is(err, errSG):
			return refuse(regs.RespInvalidParam, regs.DetailSGList)
		case err != nil && i >= dst0:
			return refuse(regs.RespDMAError, regs.DetailDstFault)
		case err != nil:
			return refuse(regs.RespDMAError, regs.DetailSrcFault)
		}
		j.lists[i] = list
	}
	return verdict{}
}

// checkRandom does step 17: what the operation needs is taken now.
func (c *Card) checkRandom(j *job) verdict {
	if j.op.random == nil {
		return verdict{}
	}
	n, quality, own := j.op.random(j.command)
	if n == 0 {
		return verdict{}
	}
	var status regs.RespStatus
	if own {
		j.grant, status = c.own(n)
	} else {
		j.grant, status = c.reserve(n, quality)
	}
	return refuse(status, 0)
}

// perform does steps 18 and 19.
func (c *Card) perform(j *job) verdict {
	for i := range j.in {
		in, err := c.load(j.command, j.lists[src0+i])
		if err != nil {
			return refuse(regs.RespDMAError, regs.DetailSrcFault)
		}
		j.in[i] = in
	}
	defer func() {
		clear(j.in[0])
		clear(j.in[1])
	}()
	if j.op.run == nil {
		return verdict{}
	}
	return j.op.run(c, j)
}
