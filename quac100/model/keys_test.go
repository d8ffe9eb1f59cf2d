package model

import (
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

func (r *rig) importKey(a regs.Attributes, material []byte, flags regs.Flags) regs.Command {
	a.Version = regs.AttributesVersion
	return regs.Command{Opcode: regs.OpKeyImport, Param: a.Alg, Flags: flags, Src0: r.put(material), Src0Len: uint32(len(material)),
		Src1: r.put(a.Append(nil)), Src1Len: regs.AttributesSize}
}

var (
	aesKey32  = regs.Attributes{Alg: regs.AES256GCM, Type: regs.KeySymmetric, Usage: regs.UsageEncrypt | regs.UsageWrap, Flags: regs.AttrDestroyable}
	publicKey = regs.Attributes{Alg: regs.MLDSA44, Type: regs.KeySignaturePublic, Usage: regs.UsageVerify}
)

// In FIPS mode secrets come in wrapped or not at all, and nobody else chooses randomness.
func TestKeysInFIPSMode(t *testing.T) {
	r := running(t, Config{})
	handle := r.want(r.importKey(aesKey32, make([]byte, 32), 0), 0, 0).KeyID
	kept := aesKey32
	kept.Flags |= regs.AttrPersistent
	persistent := r.want(r.importKey(kept, make([]byte, 32), regs.FlagPersist), 0, 0).KeyID
	r.Write32(regs.CMDQCtrl, 0)
	r.Write32(regs.RSPQCtrl, 0)
	r.Write32(regs.DevControl, 0)
	r.Write32(regs.DevControl, uint32(regs.ControlFIPS))
	r.until(regs.DevStatus, uint32(regs.StatusReady|regs.StatusFIPSOK), uint32(regs.StatusReady|regs.StatusFIPSOK))
	r.Write32(regs.RSPQCtrl, regs.QueueReset)
	r.Write32(regs.CMDQCtrl, regs.QueueReset)
	r.startWith(regs.ControlRun | regs.ControlFIPS)
	dst, _ := r.alloc(8192)
	info := regs.Command{Opcode: regs.OpKeyInfo, KeyID: handle, Dst0: dst, Dst0Len: regs.KeyInfoSize}
	r.want(info, regs.RespKeyNotFound, 0)
	info.KeyID = persistent
	r.want(info, 0, 0)
	r.want(r.importKey(aesKey32, make([]byte, 32), 0), regs.RespInvalidParam, regs.DetailFIPSDenied)
	r.want(r.importKey(publicKey, make([]byte, 1312), 0), 0, 0)
	pair := regs.Attributes{Alg: regs.MLDSA44, Type: regs.KeySignaturePair}
	r.want(r.importKey(pair, make([]byte, 32), regs.FlagSeed), regs.RespInvalidParam, regs.DetailFIPSDenied)
	keygen := regs.Command{Opcode: regs.OpSigKeygen, Param: regs.MLDSA44, Dst0: dst, Dst0Len: 1312, Dst1: dst + 4096, Dst1Len: 2560}
	if resp := r.want(keygen, 0, 0); resp.Flags&regs.RespFIPSApproved == 0 {
		t.Error("a key generation is not approved")
	}
	enc := regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, KeyID: persistent, Src1: r.put(make([]byte, 12)), Src1Len: 12, Dst0: dst, Dst0Len: 16}
	if resp := r.want(enc, 0, 0); resp.Flags&regs.RespFIPSApproved != 0 {
		t.Error("encryption with the caller's nonce is approved")
	}
	enc.Aux, enc.Src1, enc.Src1Len, enc.Dst1, enc.Dst1Len = regs.GCMDeviceNonce, 0, 0, dst+4096, 12
	if resp := r.want(enc, 0, 0); resp.Flags&regs.RespFIPSApproved == 0 {
		t.Error("encryption with the card's nonce is not approved")
	}
	r.FailPairwise(true)
	r.want(keygen, regs.RespSelfTestFail, 0)
	r.want(keygen, regs.RespSelfTestFail, regs.DetailSelfTestRequired)
}

// What an attribute block may not say.
func TestAttributes(t *testing.T) {
	r := running(t, Config{})
	with := func(f func(a *regs.Attributes)) regs.Command {
		a := aesKey32
		a.Version = regs.AttributesVersion
		f(&a)
		b := a.Append(nil)
		return regs.Command{Opcode: regs.OpKeyImport, Param: regs.AES256GCM, Src0: r.put(make([]byte, 32)), Src0Len: 32,
			Src1: r.put(b), Src1Len: regs.AttributesSize}
	}
	for name, c := range map[string]struct {
		cmd regs.Command
		d   regs.Detail
	}{
		"version":           {with(func(a *regs.Attributes) { a.Version = 2 }), regs.DetailReservedNonzero},
		"another algorithm": {with(func(a *regs.Attributes) { a.Alg = regs.MLKEM512 }), regs.DetailBadParamSet},
		"a state":           {with(func(a *regs.Attributes) { a.State = regs.KeyActive }), regs.DetailKeyState},
		"a use count":       {with(func(a *regs.Attributes) { a.UseCount = 1 }), regs.DetailReservedNonzero},
		"unknown usage":     {with(func(a *regs.Attributes) { a.Usage = 0x100 }), regs.DetailReservedNonzero},
		"unknown attribute": {with(func(a *regs.Attributes) { a.Flags = 0x40 }), regs.DetailReservedNonzero},
		"persistent, without the flag": {with(func(a *regs.Attributes) { a.Flags |= regs.AttrPersistent }),
			regs.DetailReservedNonzero},
		"a type of another family": {with(func(a *regs.Attributes) { a.Type = regs.KeyKEMPair }), regs.DetailKeyType},
		"a type beyond":            {with(func(a *regs.Attributes) { a.Type = 8 }), regs.DetailKeyType},
	} {
		if got := r.do(c.cmd); got.Status != regs.RespInvalidParam || got.Detail != c.d {
			t.Errorf("%s: %v / %v, want %v", name, got.Status, got.Detail, c.d)
		}
	}
	r.expect(regs.KeyStatus, regs.KeySlots<<16)
}

// Handles: another generation, another slot, none, and one of a slot that is used again.
func TestHandles(t *testing.T) {
	r := running(t, Config{})
	h := r.want(r.importKey(aesKey32, make([]byte, 32), 0), 0, 0).KeyID
	del := func(h uint32) regs.Command { return regs.Command{Opcode: regs.OpKeyDelete, KeyID: h} }
	for _, wrong := range []uint32{0, h + 1, h + 1<<16, h | 0xFF00, ^uint32(0)} {
		r.want(del(wrong), regs.RespKeyNotFound, 0)
	}
	r.want(del(h), 0, 0)
	r.want(del(h), regs.RespKeyNotFound, 0)
	again := r.want(r.importKey(aesKey32, make([]byte, 32), 0), 0, 0).KeyID
	if again == h || again&0xFFFF != h&0xFFFF {
		t.Errorf("handle %#x after %#x", again, h)
	}
	r.Write32(regs.KeyZeroize, 1)
	r.expect(regs.KeyStatus, regs.KeySlots<<16|1)
	r.Write32(regs.KeyZeroize, regs.KeyZeroizeToken)
	r.expect(regs.KeyStatus, regs.KeySlots<<16)
	r.want(del(again), regs.RespKeyNotFound, 0)
}

// A key that expires while it is stored.
func TestExpiry(t *testing.T) {
	r := running(t, Config{})
	a := aesKey32
	a.Expiry = uint64(time.Now().Unix() + 3600)
	h := r.want(r.importKey(a, make([]byte, 32), 0), 0, 0).KeyID
	dst, b := r.alloc(4096)
	enc := regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, KeyID: h, Src1: r.put(make([]byte, 12)), Src1Len: 12, Dst0: dst, Dst0Len: 16}
	r.want(enc, 0, 0)
	r.lock()
	r.keys.slots[h&0xFFFF].attrs.Expiry = uint64(time.Now().Unix() - 1)
	r.unlock()
	r.want(enc, regs.RespInvalidParam, regs.DetailKeyState)
	r.want(regs.Command{Opcode: regs.OpKeyInfo, KeyID: h, Dst0: dst, Dst0Len: regs.KeyInfoSize}, 0, 0)
	if i, err := regs.ParseKeyInfo(b); err != nil || i.State != regs.KeyExpired || i.UseCount != 1 {
		t.Errorf("%+v, %v", i, err)
	}
}

// A list that does not fit says how much room it needs.
func TestKeyListRoom(t *testing.T) {
	r := running(t, Config{})
	for range 3 {
		r.want(r.importKey(aesKey32, make([]byte, 32), 0), 0, 0)
	}
	dst, _ := r.alloc(64)
	resp := r.do(regs.Command{Opcode: regs.OpKeyList, Dst0: dst, Dst0Len: 8})
	if resp.Status != regs.RespInvalidLen || resp.Detail != regs.DetailDst0Len || resp.Out0Len != 12 {
		t.Errorf("%+v", resp)
	}
	if resp := r.want(regs.Command{Opcode: regs.OpKeyList, Dst0: dst, Dst0Len: 64}, 0, 0); resp.Out0Len != 12 {
		t.Errorf("%+v", resp)
	}
}

// A stored key whose device nonces are used up.
func TestNonceQuota(t *testing.T) {
	r := running(t, Config{})
	h := r.want(r.importKey(aesKey32, make([]byte, 32), 0), 0, 0).KeyID
	r.lock()
	r.keys.slots[h&0xFFFF].nonces = regs.KeyMaxDeviceNonces - 1
	r.unlock()
	dst, _ := r.alloc(4096)
	enc := regs.Command{Opcode: regs.OpAESGCMEncrypt, Param: regs.AES256GCM, KeyID: h, Aux: regs.GCMDeviceNonce, Dst0: dst, Dst0Len: 16, Dst1: dst + 64, Dst1Len: 12}
	r.want(enc, 0, 0)
	r.want(enc, regs.RespInvalidParam, regs.DetailQuota)
}
