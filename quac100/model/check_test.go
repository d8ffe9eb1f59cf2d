package model

import (
	"bytes"
	"testing"

	"quantavirt/quac100/regs"
)

// The order of checks: each row breaks several rules, and the first must win.
func TestCheckOrder(t *testing.T) {
	r := running(t, Config{})
	const hole = 0x10_0000_0000
	src, dst := r.put(make([]byte, 4096)), uint64(0)
	dst, _ = r.alloc(8192)
	inl := regs.FlagKeyInline
	for _, c := range []struct {
		what string
		cmd  regs.Command
		s    regs.RespStatus
		d    regs.Detail
	}{
		{"opcode first", regs.Command{Opcode: 0x0400, Flags: 0x8000, Aux: 9}, regs.RespInvalidOpcode, 0},
		{"opcode beyond", regs.Command{Opcode: 0x1000}, regs.RespInvalidOpcode, 0},
		{"reserved flag", regs.Command{Opcode: regs.OpNOP, Flags: 2, Aux: 1}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"flag of another opcode", regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagSeed}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"list flag of an unused buffer", regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagSGDst0}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"persistent, but not stored", regs.Command{Opcode: regs.OpKEMKeygen, Flags: regs.FlagPersist, Param: regs.MLKEM768}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"stored from a seed", regs.Command{Opcode: regs.OpKEMEncaps, Flags: regs.FlagKeyStore | regs.FlagSeed, Param: regs.MLKEM768}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"wrapped seed", regs.Command{Opcode: regs.OpKeyImport, Flags: regs.FlagWrapped | regs.FlagSeed, Param: 1}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"prehash of a KEM", regs.Command{Opcode: regs.OpKEMKeygen, Flags: regs.FlagPrehash, Param: 1}, regs.RespInvalidParam, regs.DetailUnknownFlag},
		{"room for a secret that is stored", regs.Command{Opcode: regs.OpKEMKeygen, Flags: regs.FlagKeyStore, Param: 1, Dst1Len: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"nonce room without a device nonce", regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: 1, Dst1Len: 12}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"wrapping handle of a public export", regs.Command{Opcode: regs.OpKeyExport, KeyID: 1, Aux: 1, Src1: 5}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"SHAKE set", regs.Command{Opcode: regs.OpSigKeygen, Param: regs.SLHSHAKE128s}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"signature with a KEM", regs.Command{Opcode: regs.OpSign, Param: regs.MLKEM768, Aux: 0xFFFF}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"AES with something else", regs.Command{Opcode: regs.OpAESGCMDecrypt, Param: regs.MLDSA44}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"import of nothing known", regs.Command{Opcode: regs.OpKeyImport, Param: 0x1234}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"import of a wrapped parameter", regs.Command{Opcode: regs.OpKeyImport, Flags: regs.FlagWrapped, Param: regs.MLKEM768, KeyID: 1}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"hash id without prehash", regs.Command{Opcode: regs.OpSign, Param: regs.MLDSA65, Aux: 0x0100}, regs.RespInvalidParam, regs.DetailBadAux},
		{"context longer than the source", regs.Command{Opcode: regs.OpVerify, Param: regs.MLDSA65, Aux: 5, Src0Len: 4}, regs.RespInvalidParam, regs.DetailCtxLen},
		{"hash too weak", regs.Command{Opcode: regs.OpSign, Flags: regs.FlagPrehash, Param: regs.MLDSA65, Aux: 0x0100}, regs.RespInvalidParam, regs.DetailHashID},
		{"hash unknown", regs.Command{Opcode: regs.OpVerify, Flags: regs.FlagPrehash, Param: regs.MLDSA44, Aux: 0x0900}, regs.RespInvalidParam, regs.DetailHashID},
		{"prehash without hash", regs.Command{Opcode: regs.OpVerify, Flags: regs.FlagPrehash, Param: regs.MLDSA44}, regs.RespInvalidParam, regs.DetailHashID},
		{"AES aux", regs.Command{Opcode: regs.OpAESGCMDecrypt, Param: regs.AES256GCM, Aux: 1}, regs.RespInvalidParam, regs.DetailBadAux},
		{"export aux", regs.Command{Opcode: regs.OpKeyExport, KeyID: 1, Aux: 3}, regs.RespInvalidParam, regs.DetailBadAux},
		{"list aux", regs.Command{Opcode: regs.OpKeyList, Aux: 9}, regs.RespInvalidParam, regs.DetailBadAux},
		{"zeroize without guard", regs.Command{Opcode: regs.OpKeyZeroizeAll, Aux: 1}, regs.RespInvalidParam, regs.DetailBadAux},
		{"message too long", regs.Command{Opcode: regs.OpSign, Param: regs.MLDSA65, Src0Len: regs.MaxTransfer + 1}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"signature of another set", regs.Command{Opcode: regs.OpVerify, Param: regs.MLDSA65, Src1Len: 2420}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"signature room", regs.Command{Opcode: regs.OpSign, Param: regs.MLDSA87, Dst0Len: 4626}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"attributes", regs.Command{Opcode: regs.OpSigKeygen, Flags: regs.FlagKeyStore, Param: regs.MLDSA44, Src1Len: 127, Dst0Len: 1312}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"nonce missing", regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, Src1Len: 11, Dst0Len: 16}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"too much additional data", regs.Command{Opcode: regs.OpAESGCMEncrypt, Flags: inl, Param: regs.AES256GCM, Src1Len: 44 + 65537, Dst0Len: 16}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"no room for the tag", regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, Src0Len: 5, Src1Len: 12, Dst0Len: 20}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"no room for the nonce", regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, Aux: 1, Dst0Len: 16, Dst1Len: 11}, regs.RespInvalidLen, regs.DetailDst1Len},
		{"ciphertext without a tag", regs.Command{Opcode: regs.OpAESGCMDecrypt, Param: regs.AES256GCM, Src0Len: 15, Src1Len: 12}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"import of a wrong length", regs.Command{Opcode: regs.OpKeyImport, Param: regs.MLDSA44, Src0Len: 31, Src1Len: 128}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"import without attributes", regs.Command{Opcode: regs.OpKeyImport, Param: regs.AES256GCM, Src0Len: 32}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"unknown key to sign", regs.Command{Opcode: regs.OpSign, Param: regs.MLDSA44, KeyID: 0x10000, Dst0: src, Dst0Len: 2420}, regs.RespKeyNotFound, 0},
		{"unknown key to export", regs.Command{Opcode: regs.OpKeyExport, KeyID: 0x10000, Aux: 2, Dst0Len: 1}, regs.RespKeyNotFound, 0},
		{"AES not quite in place", regs.Command{Opcode: regs.OpAESGCMEncrypt, Flags: inl, Param: regs.AES256GCM, Src0: src, Src0Len: 16, Src1: dst, Src1Len: 44, Dst0: src + 1, Dst0Len: 32}, regs.RespInvalidParam, regs.DetailOverlap},
		{"unused aux", regs.Command{Opcode: regs.OpNOP, Aux: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"unused param", regs.Command{Opcode: regs.OpNOP, Param: regs.MLKEM768}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"unused key", regs.Command{Opcode: regs.OpNOP, KeyID: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"unused address", regs.Command{Opcode: regs.OpNOP, Dst1: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"unused length", regs.Command{Opcode: regs.OpEcho, Src1Len: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"inline and handle", regs.Command{Opcode: regs.OpKEMEncaps, Flags: inl, KeyID: 1, Param: 1}, regs.RespInvalidParam, regs.DetailReservedNonzero},
		{"parameter set", regs.Command{Opcode: regs.OpKEMKeygen, Param: 0x1103}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"parameter set of another family", regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLDSA65}, regs.RespInvalidParam, regs.DetailBadParamSet},
		{"aux before length", regs.Command{Opcode: regs.OpQRNGRead, Aux: 4}, regs.RespInvalidParam, regs.DetailBadAux},
		{"source 8", regs.Command{Opcode: regs.OpQRNGRaw, Aux: 8, Dst0Len: 1}, regs.RespInvalidParam, regs.DetailBadAux},
		{"empty echo", regs.Command{Opcode: regs.OpEcho}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"echo too long", regs.Command{Opcode: regs.OpEcho, Src0Len: 1<<20 + 1, Dst0Len: 1 << 21}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"echo without room", regs.Command{Opcode: regs.OpEcho, Src0Len: 64, Dst0Len: 63}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"room beyond the largest transfer", regs.Command{Opcode: regs.OpEcho, Src0Len: 64, Dst0Len: regs.MaxTransfer + 1}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"seed length", regs.Command{Opcode: regs.OpKEMKeygen, Flags: regs.FlagSeed, Param: regs.MLKEM768, Src0: src, Src0Len: 63}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"public key room", regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLKEM768, Dst0Len: 1183}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"secret key room", regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLKEM768, Dst0Len: 1184, Dst1Len: 2399}, regs.RespInvalidLen, regs.DetailDst1Len},
		{"public key not exact", regs.Command{Opcode: regs.OpKEMEncaps, Flags: inl, Param: regs.MLKEM768, Src0: src, Src0Len: 1185, Dst0Len: 2000, Dst1Len: 32}, regs.RespInvalidLen, regs.DetailSrc0Len},
		{"secret not exact", regs.Command{Opcode: regs.OpKEMDecaps, Flags: inl, Param: regs.MLKEM768, Src0Len: 1088, Src1Len: 2401, Dst0Len: 32}, regs.RespInvalidLen, regs.DetailSrc1Len},
		{"pool too small for it", regs.Command{Opcode: regs.OpQRNGRead, Aux: 1, Dst0: dst, Dst0Len: 131073}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"pool too small for half", regs.Command{Opcode: regs.OpQRNGRead, Aux: 2, Dst0: dst, Dst0Len: 65537}, regs.RespInvalidLen, regs.DetailDst0Len},
		{"handle", regs.Command{Opcode: regs.OpKEMEncaps, KeyID: 0x10001, Param: regs.MLKEM768, Dst0: dst, Dst0Len: 1088, Dst1: dst, Dst1Len: 32}, regs.RespKeyNotFound, 0},
		{"handle 0", regs.Command{Opcode: regs.OpKEMDecaps, Param: regs.MLKEM768, Src0: hole, Src0Len: 1088, Dst0: dst, Dst0Len: 32}, regs.RespKeyNotFound, 0},
		{"overlap", regs.Command{Opcode: regs.OpEcho, Src0: hole, Src0Len: 64, Dst0: hole + 63, Dst0Len: 64}, regs.RespInvalidParam, regs.DetailOverlap},
		{"overlap of the room", regs.Command{Opcode: regs.OpEcho, Src0: dst + 64, Src0Len: 64, Dst0: dst, Dst0Len: 65}, regs.RespInvalidParam, regs.DetailOverlap},
		{"overlap of outputs", regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLKEM768, Dst0: dst, Dst0Len: 1184, Dst1: dst + 1183, Dst1Len: 2400}, regs.RespInvalidParam, regs.DetailOverlap},
		{"list alignment", regs.Command{Opcode: regs.OpEcho, Flags: regs.FlagSGSrc0, Src0: src + 8, Src0Len: 64, Dst0: dst, Dst0Len: 64}, regs.RespInvalidParam, regs.DetailSGList},
		{"source fault", regs.Command{Opcode: regs.OpEcho, Src0: hole, Src0Len: 64, Dst0: dst, Dst0Len: 64}, regs.RespDMAError, regs.DetailSrcFault},
		{"destination fault", regs.Command{Opcode: regs.OpEcho, Src0: src, Src0Len: 64, Dst0: hole, Dst0Len: 64}, regs.RespDMAError, regs.DetailDstFault},
		{"self-test of nothing", regs.Command{Opcode: regs.OpSelfTest}, regs.RespInvalidParam, regs.DetailBadAux},
	} {
		if got := r.do(c.cmd); got.Status != c.s || got.Detail != c.d || got.Out0Len != 0 {
			t.Errorf("%s: %v / %v, want %v / %v", c.what, got.Status, got.Detail, c.s, c.d)
		}
	}
	r.expect(regs.OpsOKLo, 0)
}

func TestFeaturesOff(t *testing.T) {
	r := running(t, Config{})
	dst, _ := r.alloc(8192)
	read := regs.Command{Opcode: regs.OpQRNGRead, Dst0: dst, Dst0Len: 32}
	raw := regs.Command{Opcode: regs.OpQRNGRaw, Dst0: dst, Dst0Len: 32}
	keygen := regs.Command{Opcode: regs.OpKEMKeygen, Param: regs.MLKEM768, Dst0: dst, Dst0Len: 1184, Dst1: dst + 4096, Dst1Len: 2400}
	r.Write32(regs.DevControl, uint32(regs.ControlRun&^regs.ControlQRNG))
	r.want(read, regs.RespInvalidParam, regs.DetailFeatureOff)
	r.want(raw, regs.RespInvalidParam, regs.DetailFeatureOff)
	r.want(regs.Command{Opcode: regs.OpQRNGReseed}, regs.RespInvalidParam, regs.DetailFeatureOff)
	r.want(regs.Command{Opcode: regs.OpQRNGHealth}, 0, 0)
	r.want(keygen, 0, 0) // its own randomness stays available
	r.Write32(regs.DevControl, uint32(regs.ControlRun&^regs.ControlCrypto))
	r.want(keygen, regs.RespInvalidParam, regs.DetailFeatureOff)
	r.want(read, 0, 0)
	r.Write32(regs.DMAControl, regs.DMAEnable)
	list := r.put(make([]byte, 16))
	r.want(regs.Command{Opcode: regs.OpEcho, Flags: regs.FlagSGSrc0, Src0: list, Src0Len: 8, Dst0: dst, Dst0Len: 64}, regs.RespInvalidParam, regs.DetailFeatureOff)
}

// list stores a scatter-gather list and returns its address.
func (r *rig) list(entries ...regs.SG) uint64 {
	b := make([]byte, len(entries)*regs.SGSize)
	for i, e := range entries {
		e.Put(b[i*regs.SGSize:])
	}
	return r.put(b)
}

func TestScatterGather(t *testing.T) {
	r := running(t, Config{})
	in := katSeed(300, 1)
	a, b, c := r.put(in[:100]), r.put(in[100:101]), r.put(in[101:])
	x, xb := r.alloc(250)
	y, yb := r.alloc(250)
	src := r.list(regs.SG{Addr: a, Len: 100}, regs.SG{Addr: b, Len: 1}, regs.SG{Addr: c, Len: 199, Flags: regs.SGLast}, regs.SG{Addr: 1})
	dst := r.list(regs.SG{Addr: x, Len: 250}, regs.SG{Addr: y, Len: 100, Flags: regs.SGLast})
	resp := r.want(regs.Command{Opcode: regs.OpEcho, Flags: regs.FlagSGSrc0 | regs.FlagSGDst0, Src0: src, Src0Len: 300, Dst0: dst, Dst0Len: 350}, 0, 0)
	if resp.Out0Len != 300 || !bytes.Equal(xb, in[:250]) || !bytes.Equal(yb[:50], in[250:]) || yb[50] != 0 {
		t.Errorf("%d bytes: %x %x", resp.Out0Len, xb, yb)
	}

	full := make([]regs.SG, regs.SGMax)
	for i := range full {
		full[i] = regs.SG{Addr: a, Len: 1}
	}
	full[regs.SGMax-1].Flags = regs.SGLast
	most := r.list(full...)
	r.want(regs.Command{Opcode: regs.OpEcho, Flags: regs.FlagSGSrc0, Src0: most, Src0Len: 256, Dst0: x, Dst0Len: 256}, 0, 0)
	full[regs.SGMax-1].Flags = 0
	endless := r.list(append(full, regs.SG{Addr: a, Len: 1, Flags: regs.SGLast})...)
	for what, c := range map[string]struct {
		at uint64
		n  uint32
	}{
		"no last entry in 256":  {endless, 257},
		"an empty entry":        {r.list(regs.SG{Addr: a, Len: 4}, regs.SG{Addr: a, Len: 0, Flags: regs.SGLast}), 4},
		"a reserved flag":       {r.list(regs.SG{Addr: a, Len: 4, Flags: 3}), 4},
		"a sum that is too low": {r.list(regs.SG{Addr: a, Len: 4, Flags: 1}), 5},
		"and too high":          {r.list(regs.SG{Addr: a, Len: 6, Flags: 1}), 5},
	} {
		if got := r.do(regs.Command{Opcode: regs.OpEcho, Flags: regs.FlagSGSrc0, Src0: c.at, Src0Len: c.n, Dst0: x, Dst0Len: 512}); got.Status != regs.RespInvalidParam || got.Detail != regs.DetailSGList {
			t.Errorf("%s: %v / %v", what, got.Status, got.Detail)
		}
	}
	r.expect(regs.DMAError, 0)
}

func TestDMAWindowAndOffset(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.DMAXlatOffsetLo, 0)
	r.Write32(regs.DMAWinBaseLo, ramAt)
	r.Write32(regs.DMAWinLimitLo, dataAt+4095)
	r.Write32(regs.DMAWinLimitHi, 0)
	r.Write32(regs.DMAXlatCtrl, regs.XlatWindow)
	r.start()
	in := r.put([]byte("inside"))
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: in, Src0Len: 6, Dst0: dataAt + 4090, Dst0Len: 6}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: in, Src0Len: 6, Dst0: dataAt + 4091, Dst0Len: 6}, regs.RespDMAError, regs.DetailDstFault)
	r.expect(regs.DMAError, regs.DMAErrWriteFault|regs.DMAErrOutOfWindow)
	r.Write32(regs.DMAXlatCtrl, 0)
	r.expect(regs.DMAXlatCtrl, regs.XlatWindow)
	if r.Read32(regs.ErrStatus)&regs.ErrAccess.Mask() == 0 {
		t.Error("the window changed while the rings were on")
	}
	r.Write32(regs.Reset, regs.ResetSoft)
	r.ready()
	r.Write32(regs.DMAXlatOffsetLo, ramAt-0x5000)
	r.Write32(regs.DMAXlatCtrl, regs.XlatOffset)
	for reg, v := range map[regs.Reg]uint32{
		regs.CMDQBaseLo: cmdqAt - ramAt + 0x5000, regs.CMDQSize: r.size, regs.RSPQBaseLo: rspqAt - ramAt + 0x5000, regs.RSPQSize: r.size,
		regs.DMAControl: regs.DMAEnable, regs.DevControl: uint32(regs.ControlRun),
	} {
		r.Write32(reg, v)
	}
	clear(r.ram[rspqAt-ramAt:][:r.size*regs.ResponseSize])
	r.tail, r.head, r.phase = 0, 0, true
	r.Write32(regs.RSPQCtrl, 1)
	r.Write32(regs.CMDQCtrl, 1)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

func TestDMAErrorLatch(t *testing.T) {
	r := running(t, Config{})
	dst, _ := r.alloc(64)
	r.Write32(regs.IntMask, ^regs.CauseDMAError.Mask())
	first := r.do(regs.Command{Opcode: regs.OpEcho, Src0: 0x9_0000_1000, Src0Len: 8, Dst0: dst, Dst0Len: 64})
	if v := r.vector(); v != regs.VectorErrors {
		t.Errorf("vector %d", v)
	}
	r.do(regs.Command{Opcode: regs.OpEcho, Src0: 0x9_0000_2000, Src0Len: 8, Dst0: dst, Dst0Len: 64})
	r.expect(regs.DMAError, regs.DMAErrReadFault|regs.DMAErrUnmapped|regs.DMAErrMore)
	r.expect(regs.DMAErrAddrLo, 0x1000)
	r.expect(regs.DMAErrAddrHi, 9)
	r.expect(regs.DMAErrTag, first.Tag)
	r.expect(regs.DMAStatus, regs.DMAFailed|regs.DMALatched)
	r.expect(regs.ErrStatus, regs.ErrDMA.Mask())
	r.Write32(regs.DMAError, ^uint32(0))
	r.expect(regs.DMAErrAddrLo, 0)
	r.expect(regs.DMAStatus, regs.DMAIdle)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: ^uint64(0) - 3, Src0Len: 8, Dst0: dst, Dst0Len: 64}, regs.RespDMAError, regs.DetailSrcFault)
	r.expect(regs.DMAError, regs.DMAErrReadFault|regs.DMAErrLength)
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

// A mapping that only permits reading is enforced, and so is its end.
func TestProtection(t *testing.T) {
	r := running(t, Config{})
	page := make([]byte, PageSize)
	if err := r.mem.Map(0x5000000, page, true, false); err != nil {
		t.Fatal(err)
	}
	src, _ := r.alloc(64)
	dst, _ := r.alloc(64)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: 0x5000000, Src0Len: 64, Dst0: dst, Dst0Len: 64}, 0, 0)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: src, Src0Len: 64, Dst0: 0x5000000, Dst0Len: 64}, regs.RespDMAError, regs.DetailDstFault)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: 0x5000000 + PageSize - 8, Src0Len: 64, Dst0: dst, Dst0Len: 64}, regs.RespDMAError, regs.DetailSrcFault)
	r.mem.Unmap(0x5000000, PageSize)
	r.want(regs.Command{Opcode: regs.OpEcho, Src0: 0x5000000, Src0Len: 64, Dst0: dst, Dst0Len: 64}, regs.RespDMAError, regs.DetailSrcFault)
	if !bytes.Equal(page, make([]byte, PageSize)) {
		t.Error("the page was written")
	}
}

func TestMemoryMaps(t *testing.T) {
	m := NewMemory(nil)
	for _, c := range []struct {
		iova uint64
		n    int
		ok   bool
	}{
		{0x1000, 4096, true}, {0x3000, 4096, true}, {0x2000, 4096, true}, {0x1000, 4096, false}, {0, 8192, false},
		{0x10, 4096, false}, {0x8000, 100, false}, {0x8000, 0, false}, {^uint64(0) &^ 0xFFF, 8192, false}, {^uint64(0) &^ 0xFFF, 4096, true},
	} {
		if err := m.Map(c.iova, make([]byte, c.n), true, true); (err == nil) != c.ok {
			t.Errorf("map %d at %#x: %v", c.n, c.iova, err)
		}
	}
	if err := m.WriteDMA(0x1FFE, []byte("across")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 6)
	if err := m.ReadDMA(0x1FFE, got); err != nil || string(got) != "across" {
		t.Errorf("%q %v", got, err)
	}
	if err := m.ReadDMA(^uint64(0)-3, make([]byte, 8)); err == nil {
		t.Error("an access across the end of the address space")
	}
	m.Unmap(0, 0x10000)
	if m.Len() != 1 {
		t.Errorf("%d maps are left", m.Len())
	}
}
