package model

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"quantavirt/quac100/regs"
)

// Four thousand commands in flight at a time, small and large, with another goroutine reading registers all the while.
func TestDeepRing(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.size = 4096
	r.start()
	r.Write32(regs.CMDQMaxInflight, 4096)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, reg := range []regs.Reg{regs.DevStatus, regs.CMDQStatus, regs.OpsOKLo, regs.Heartbeat} {
				r.Read32(reg)
			}
			time.Sleep(50 * time.Microsecond)
		}
	})
	dst, _ := r.alloc(1 << 16)
	for range 3 {
		pending := map[uint32]regs.Opcode{}
		for i := range 4095 {
			c := regs.Command{Opcode: regs.OpNOP, Flags: regs.FlagIRQ}
			switch {
			case i%7 == 0:
				c = regs.Command{Opcode: regs.OpQRNGRead, Aux: uint16(regs.QualityFast), Dst0: dst + uint64(i)*16, Dst0Len: 16}
			case i%500 == 3:
				c.Flags |= regs.FlagFence
			case i%11 == 0:
				c = regs.Command{Opcode: 0x6666}
			}
			pending[r.push(c)] = c.Opcode
			if i%97 == 0 {
				r.ring()
			}
		}
		r.ring()
		for range 4095 {
			resp := r.next()
			if op, ok := pending[resp.Tag]; !ok || op != resp.Opcode || (resp.Status == 0) != (op != 0x6666) {
				t.Fatalf("response %+v", resp)
			}
			delete(pending, resp.Tag)
		}
	}
	close(stop)
	wg.Wait()
	r.until(regs.CMDQStatus, 0xFFFF0000, 0)
}

// Resets, switches and faults in the middle of work: the card always comes back.
func TestChaos(t *testing.T) {
	r := newRig(t, Config{Workers: 4}).ready()
	rng := rand.New(rand.NewPCG(3, 4))
	dst, _ := r.alloc(1 << 16)
	for round := range 60 {
		r.start()
		for range 40 {
			r.push(regs.Command{Opcode: regs.OpQRNGRead, Flags: regs.FlagIRQ, Aux: 3, Dst0: dst, Dst0Len: 1 + rng.Uint32N(1000)})
		}
		r.ring()
		time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		switch rng.IntN(7) {
		case 0:
			r.Write32(regs.Reset, regs.ResetRing)
		case 1:
			r.WriteConfig(regs.CfgDevControl, []byte{0, 0x80})
		case 2:
			r.PowerCycle()
		case 3:
			r.WriteConfig(regs.CfgCommand, []byte{2, 0})
			r.Write32(regs.Reset, regs.ResetSoft)
		case 4:
			r.FailDMA(func(bool, uint64, int) error { return ErrUnmapped })
		case 5:
			r.Hang(HangSoft)
		case 6:
			r.Connect(nil)
			r.Connect(r.mem)
		}
		r.pciOn()
		r.FailDMA(nil)
		r.Write32(regs.Reset, regs.ResetFull)
		r.ready()
		if s := r.status(); s&regs.StatusReady == 0 {
			t.Fatalf("round %d: status %#x", round, s)
		}
		r.expect(regs.ErrStatus, 0)
	}
	r.start()
	r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
}

// Whatever a guest writes, the card neither fails nor forgets how to recover.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{0, 1, 0x0C, 1, 0, 0, 0, 1, 1, 2, 3, 4}, uint16(0x100))
	f.Add([]byte{3, 0, 0x14, 1, 0, 0, 0, 9, 0, 2, 0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, prog []byte, seed uint16) {
		r := newRig(t, Config{Workers: 2}).ready().start()
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		for i := range 64 * regs.CommandSize {
			r.ram[cmdqAt-ramAt+i] = byte(rng.Uint32())
		}
		for i := range 64 { // some entries near to valid ones
			at := r.ram[cmdqAt-ramAt+i*regs.CommandSize:]
			if len(prog) > i && prog[i]&1 != 0 {
				c := regs.Command{Opcode: regs.Opcode(prog[i]) << 7, Flags: regs.Flags(seed), Src0: dataAt, Dst0: dataAt + 0x1000, Src0Len: uint32(prog[i]), Dst0Len: uint32(seed)}
				c.Put(at)
			}
		}
		r.Write32(regs.CMDQTail, 63)
		for ; len(prog) >= 8; prog = prog[8:] {
			v := le.Uint32(prog[4:])
			switch prog[0] % 4 {
			case 0, 1:
				r.Write32(regs.Reg(le.Uint16(prog[2:])%0x900)&^3, v)
			case 2:
				r.WriteConfig(int(prog[2]), prog[4:4+1+prog[1]%4])
			case 3:
				p := make([]byte, 1+prog[1]%16)
				r.Read(uint64(le.Uint16(prog[2:])), p)
				r.Write(uint64(le.Uint16(prog[2:])), p)
			}
		}
		r.Hang(HangNone)
		r.PowerCycle()
		r.pciOn()
		r.ready().start()
		r.want(regs.Command{Opcode: regs.OpNOP}, 0, 0)
	})
}
