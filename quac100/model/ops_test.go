package model

import (
	"bytes"
	"sync/atomic"
	"testing"
	"unsafe"

	"quantavirt/quac100/regs"
)

func loadDMA(b []byte) uint32 { return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b[0]))) }

func TestNopEchoQRNG(t *testing.T) {
	r := running(t, Config{})
	resp := r.want(regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ}, 0, 0)
	if resp.SQHead != 1 || resp.Flags&regs.RespPhase == 0 {
		t.Errorf("response %+v", resp)
	}
	if v := r.vector(); v != regs.VectorResponses {
		t.Errorf("message on vector %d", v)
	}
	in := katSeed(5000, 1)
	src := r.put(in)
	dst, out := r.alloc(6000)
	resp = r.want(regs.Command{Opcode: regs.OpEcho, Src0: src, Src0Len: 5000, Dst0: dst, Dst0Len: 6000}, 0, 0)
	if resp.Out0Len != 5000 || !bytes.Equal(out[:5000], in) || out[5000] != 0 {
		t.Errorf("echo wrote %d bytes", resp.Out0Len)
	}
	for q := range uint16(4) {
		dst, out := r.alloc(32)
		resp = r.want(regs.Command{Opcode: regs.OpQRNGRead, Aux: q, Dst0: dst, Dst0Len: 32}, 0, 0)
		if resp.Out0Len != 32 || bytes.Equal(out, make([]byte, 32)) {
			t.Errorf("quality %d wrote %d bytes: %x", q, resp.Out0Len, out)
		}
	}
	r.expect(regs.OpsOKLo, 6)
	r.expect(regs.OpsFailLo, 0)
	r.expect(regs.ErrStatus, 0)
}
