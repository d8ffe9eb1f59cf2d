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
	ruleOption          // lo or 0
)

type rule struct {
	kind   ruleKind
	lo, hi uint32
	ok     func(n uint32) bool // if there is more to it
}

func exact(n int) rule     { return rule{kind: ruleExact, lo: uint32(n)} }
func room(n int) rule      { return rule{kind: ruleRoom, lo: uint32(n)} }
func option(n int) rule    { return rule{kind: ruleOption, lo: uint32(n)} }
func span(lo, hi int) rule { return rule{kind: ruleRange, lo: uint32(lo), hi: uint32(hi)} }

func (r rule) allows(n uint32) bool {
	if r.ok != nil && !r.ok(n) {
		return false
	}
	switch r.kind {
	case ruleOption:
		return n == 0 || n == r.lo
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
	caps     regs.Caps               // one of them must be present; 0 for none
	flags    regs.Flags              // allowed besides FENCE, IRQ and SG
	badFlags func(f regs.Flags) bool // combinations that are not allowed
	fence    bool                    //
	hot      bool                    // allowed when the card is too hot
	feature  feature                 //
	alg      func(m *command) bool   // whether PARAM is right; nil: must be 0
	aux      func(m *command) regs.Detail
	key      func(m *command) bool         // whether KEY_ID is used
	need     func(m *command) keyNeed      // what of the key that it names; nil: it is an argument
	key2     func(c *Card, j *job) verdict // what else steps 12 and 13 check; called with the lock
	src1Arg  func(m *command) bool         // whether SRC1 is an argument
	stores   func(m *command) bool         // whether a key slot is needed
	uses     func(f regs.Flags) layout
	usesOf   func(m *command) layout // instead of uses, if it depends on more than flags
	sizes    func(m *command) layout // nil if uses says it all
	inPlace  bool                    // DST0 may be exactly SRC0
	denied   func(m *command) bool   // in FIPS mode
	random   func(m *command) (n int, q regs.Quality, own bool)
	run      func(c *Card, j *job) verdict
}

// job is a command being executed.
type job struct {
	*command
	lists    [buffers][]segment
	in       [2][]byte
	grant    *grant
	fips     bool
	key      *storedKey // that KEY_ID names, a copy
	keySlot  int
	wrap     *storedKey // that wraps it
	slot     int        // for a new key
	reserved bool
}

// verdict is what an operation came to. Outputs are written only if status is 0.
type verdict struct {
	status regs.RespStatus
	detail regs.Detail
	out    [2][]byte
	flags  regs.RespFlags
	secret bool       // outputs are wiped after writing
	store  *storedKey // goes into the reserved slot
	kept   bool       // it is there
	needed uint32     // OUT0_LEN of a refusal
}

func refuse(s regs.RespStatus, d regs.Detail) verdict { return verdict{status: s, detail: d} }

// execute checks and does a command, in the order of the specification's section 13.3: the first failure wins.
func (c *Card) execute(m *command) regs.Response {
	begin := time.Now()
	j := &job{command: m}
	defer c.endJob(j)
	c.hangOn(m)
	v := c.check(j)
	if v.status == 0 {
		v = c.perform(j)
	}
	defer v.wipe()
	c.linger(m, begin)
	if v.status == 0 && !c.claim(m) {
		return regs.Response{Status: regs.RespTimeout} // never seen: the command has its answer
	}
	r := regs.Response{Status: v.status, Detail: v.detail, Flags: v.flags, Out0Len: v.needed}
	if v.status != 0 {
		return r
	}
	for i, out := range v.out {
		if err := c.store(m, j.lists[dst0+i], out); err != nil {
			return regs.Response{Status: regs.RespDMAError, Detail: regs.DetailDstFault}
		}
	}
	r.Out0Len, r.Out1Len = uint32(len(v.out[0])), uint32(len(v.out[1]))
	if j.key != nil {
		r.KeyID = m.KeyID
	}
	if v.store != nil {
		handle, ok := c.keep(j, v.store)
		if !ok {
			return regs.Response{Status: regs.RespTimeout, Detail: regs.DetailResetting} // never seen
		}
		r.KeyID, v.kept = handle, true
		v.store = nil
	}
	if !c.keysSaved() {
		c.forget(r.KeyID, v.kept)
		return regs.Response{Status: regs.RespUnknown}
	}
	c.countNTT(m.Opcode, m.Param)
	return r
}

// endJob gives back what the job has, and wipes its keys.
func (c *Card) endJob(j *job) {
	c.unreserve(j)
	for _, k := range []*storedKey{j.key, j.wrap} {
		if k != nil {
			k.wipe()
		}
	}
}

func (v *verdict) wipe() {
	if v.secret {
		clear(v.out[0])
		clear(v.out[1])
	}
	if v.store != nil {
		v.store.wipe()
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
	if m.op != nil && m.op.alg != nil {
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

// hangOn makes a command hang until it needs no result any more, if that was injected.
func (c *Card) hangOn(m *command) {
	c.lock()
	stuck := c.faults.stuck > 0
	if stuck {
		c.faults.stuck--
	}
	c.unlock()
	if stuck {
		<-m.cancel
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
	switch {
	case m.op.usesOf != nil:
		l = m.op.usesOf(m)
	case m.op.uses != nil:
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
	case c.faults.ecc == ECCUncorrected:
		return refuse(regs.RespUnknown, 0)
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
	if m.Flags&^allowed != 0 || m.op.badFlags != nil && m.op.badFlags(m.Flags) {
		return refuse(regs.RespInvalidParam, regs.DetailUnknownFlag)
	}
	addrs := [buffers]uint64{m.Src0, m.Src1, m.Dst0, m.Dst1}
	lens := [buffers]uint32{m.Src0Len, m.Src1Len, m.Dst0Len, m.Dst1Len}
	if m.op.src1Arg != nil && m.op.src1Arg(m) {
		addrs[src1] = 0
	}
	dirty := m.op.alg == nil && m.Param != 0 || m.op.aux == nil && m.Aux != 0 || (m.op.key == nil || !m.op.key(m)) && m.KeyID != 0
	for i, r := range l {
		dirty = dirty || r.kind == ruleUnused && (addrs[i] != 0 || lens[i] != 0)
	}
	if dirty {
		return refuse(regs.RespInvalidParam, regs.DetailReservedNonzero)
	}
	if m.op.alg != nil && !m.op.alg(m) {
		return refuse(regs.RespInvalidParam, regs.DetailBadParamSet)
	}
	if m.op.aux != nil {
		if d := m.op.aux(m); d != 0 {
			return refuse(regs.RespInvalidParam, d)
		}
	}
	return verdict{}
}

// inFamily accepts the algorithms that one of the capabilities stands for, as far as the card has them.
func inFamily(caps regs.Caps) func(m *command) bool {
	return func(m *command) bool {
		s, ok := regs.SizesOf(m.Param)
		return ok && s.Cap&caps != 0 && s.Cap&modelCaps != 0
	}
}

// storing: a key is to be kept.
func storing(m *command) bool { return m.Flags&regs.FlagKeyStore != 0 }

// persistAlone: only a stored key can be persistent.
func persistAlone(f regs.Flags) bool { return f&regs.FlagPersist != 0 && f&regs.FlagKeyStore == 0 }

// checkLengths does step 10.
func checkLengths(m *command, l layout) verdict {
	for i, n := range [buffers]uint32{m.Src0Len, m.Src1Len, m.Dst0Len, m.Dst1Len} {
		if !l[i].allows(n) {
			return refuse(regs.RespInvalidLen, regs.DetailSrc0Len+regs.Detail(i))
		}
	}
	return verdict{}
}

// checkPolicy does steps 11 to 14.
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
	}
	if m.op.need != nil && m.op.key(m) {
		var v verdict
		if j.key, j.keySlot, v = c.take(m.KeyID, m.op.need(m), m.Param); v.status != 0 {
			return v
		}
	}
	if m.op.key2 != nil {
		if v := m.op.key2(c, j); v.status != 0 {
			return v
		}
	}
	if m.op.stores != nil && m.op.stores(m) {
		if j.slot, j.reserved = c.keys.reserve(); !j.reserved {
			return refuse(regs.RespBusy, regs.DetailKeyStoreFull)
		}
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
	if m.op.inPlace && a[dst0].from == a[src0].from && a[dst0].n > 0 {
		a[src0] = area{}
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
