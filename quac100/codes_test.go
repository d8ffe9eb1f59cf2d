package quac100_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// oddBus is a bus on which something is wrong.
type oddBus struct {
	*direct.Bus
	read       func(r regs.Reg, v uint32) uint32
	config     error
	alloc      func(n int) error
	interrupts error
	allocs     int
}

func (b *oddBus) Read32(r regs.Reg) uint32 {
	v := b.Bus.Read32(r)
	if b.read != nil {
		v = b.read(r, v)
	}
	return v
}

func (b *oddBus) ReadConfig(off int64, p []byte) error {
	if b.config != nil {
		return b.config
	}
	return b.Bus.ReadConfig(off, p)
}

func (b *oddBus) AllocDMA(size int) (quac100.Buffer, error) {
	b.allocs++
	if b.alloc != nil {
		if err := b.alloc(b.allocs); err != nil {
			return quac100.Buffer{}, err
		}
	}
	return b.Bus.AllocDMA(size)
}

func (b *oddBus) Interrupts(n int, handle func(int)) error {
	if b.interrupts != nil {
		return b.interrupts
	}
	return b.Bus.Interrupts(n, handle)
}

// instead answers one register with another value.
func instead(which regs.Reg, v uint32) func(regs.Reg, uint32) uint32 {
	return func(r regs.Reg, old uint32) uint32 {
		if r == which {
			return v
		}
		return old
	}
}

var errOdd = errors.New("injected")

// What is wrong at bring-up has its own code, and nothing is left behind.
func TestBringUpCodes(t *testing.T) {
	no := qverr.New(qverr.NoMem, "no memory")
	for _, tc := range []struct {
		name string
		cfg  model.Config
		odd  oddBus
		lose bool
		want qverr.Code
	}{
		{name: "another card", odd: oddBus{read: instead(regs.DevID, 0x12345678)}, want: qverr.QUACNotFound},
		{name: "a card that is gone", odd: oddBus{read: func(regs.Reg, uint32) uint32 { return regs.GoneWord }}, want: qverr.QUACNotFound},
		{name: "no configuration space", odd: oddBus{config: errOdd}, want: qverr.QUACDriver},
		{name: "another interface", odd: oddBus{read: instead(regs.DevRev, 0x00020001)}, want: qverr.QUACFWVersion},
		{name: "silicon that is not known", odd: oddBus{read: instead(regs.DevCaps, uint32(regs.CapsFull))}, want: qverr.QUACFWVersion},
		{name: "other entries", odd: oddBus{read: instead(regs.DevCaps2, 0x8101574C)}, want: qverr.QUACFWVersion},
		{name: "registers that do not hold", odd: oddBus{read: instead(regs.Scratch0, 0)}, want: qverr.QUACMMIO},
		{name: "no memory for buffers", odd: oddBus{alloc: func(n int) error { return no }}, want: qverr.QUACDMA},
		{name: "no memory for rings", odd: oddBus{alloc: func(n int) error {
			if n == 2 {
				return no
			}
			return nil
		}}, want: qverr.QUACRingInit},
		{name: "rings that are refused", odd: oddBus{read: instead(regs.CMDQCtrl, 0)}, want: qverr.QUACRingInit},
		{name: "no vectors", odd: oddBus{interrupts: qverr.New(qverr.QUACInterrupt, "no vectors")}, want: qverr.QUACInterrupt},
		{name: "interrupts that do not arrive", lose: true, want: qverr.QUACInterrupt},
		{name: "a heartbeat that stands still", odd: oddBus{read: instead(regs.Heartbeat, 5)}, want: qverr.QUACWatchdog},
		{name: "a self-test that fails", cfg: model.Config{FailSelfTest: regs.TestNTT | regs.TestSign}, want: qverr.QUACSelfTest},
		{name: "no auxiliary power", odd: oddBus{read: instead(regs.VAuxMV, 0)}, want: qverr.QUACPower},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, bus := plug(t, tc.cfg)
			bus.LoseInterrupts(tc.lose)
			odd := tc.odd
			odd.Bus = bus
			_, err := quac100.Open(t.Context(), &odd, patient)
			if got := qverr.CodeOf(err); got != tc.want {
				t.Errorf("code %d (%v), want %d", got, err, tc.want)
			}
			provokes(qverr.CodeOf(err))
			if n := bus.Leaked(); n != 0 {
				t.Errorf("%d DMA buffers are left", n)
			}
		})
	}
}

// Every response code of the card, from the card itself, and what the driver
// makes of it.
func TestResponseCodes(t *testing.T) {
	type env struct {
		c   *quac100.Card
		m   *model.Card
		b   *breaker
		ctx context.Context
	}
	random := func(e env) error { return e.c.ReadRandom(e.ctx, regs.QualityMaximum, make([]byte, 1<<16)) }
	seen := make(map[regs.RespStatus]bool)
	for _, tc := range []struct {
		status regs.RespStatus
		detail regs.Detail
		code   qverr.Code
		call   func(e env) error
	}{
		{regs.RespSuccess, 0, qverr.Success, func(e env) error { return e.c.NOP(e.ctx, false) }},
		{regs.RespInvalidOpcode, 0, qverr.Unsupported, func(e env) error { return e.c.Raw(e.ctx, 0x0400) }},
		{regs.RespInvalidParam, regs.DetailBadAux, qverr.Inval, func(e env) error { return e.c.RawSamples(e.ctx, 8, make([]byte, 1)) }},
		{regs.RespInvalidLen, regs.DetailDst0Len, qverr.Inval, func(e env) error { return e.c.RawSamples(e.ctx, 0, make([]byte, 1<<17)) }},
		{regs.RespDMAError, regs.DetailDstFault, qverr.QUACDMA, func(e env) error {
			e.b.put(`{"dma":{"direction":"write","at_least":64,"count":1}}`)
			return e.c.Echo(e.ctx, make([]byte, 64), make([]byte, 64))
		}},
		{regs.RespCryptoFail, regs.DetailTagMismatch, qverr.PQCDecrypt, func(e env) error {
			return e.c.DecryptGCM(e.ctx, quac100.Inline(make([]byte, 32)), make([]byte, 12), nil, make([]byte, 16), nil)
		}},
		{regs.RespCryptoFail, regs.DetailSigInvalid, qverr.PQCVerify, func(e env) error {
			return e.c.Verify(e.ctx, regs.MLDSA44, quac100.Inline(make([]byte, 1312)), quac100.SignOptions{}, nil, make([]byte, 2420))
		}},
		{regs.RespCryptoFail, 0, qverr.QUACNTT, func(e env) error {
			e.b.put(`{"crypto":1}`)
			_, _, err := e.c.KEMGenerateKey(e.ctx, regs.MLKEM512)
			return err
		}},
		{regs.RespKeyNotFound, 0, qverr.PQCKeyNotFound, func(e env) error { return e.c.DeleteKey(e.ctx, 0x10000) }},
		{regs.RespBusy, regs.DetailKeyStoreFull, qverr.Again, func(e env) error {
			for {
				if _, err := e.c.GenerateAESKey(e.ctx, nil); err != nil {
					return err
				}
			}
		}},
		{regs.RespTimeout, 0, qverr.QUACWatchdog, func(e env) error {
			e.b.put(`{"hang_commands":1}`)
			return e.c.NOP(e.ctx, false)
		}},
		{regs.RespTimeout, regs.DetailAborted, qverr.QUACWatchdog, func(e env) error {
			e.b.put(`{"hang_commands":1}`)
			time.AfterFunc(20*time.Millisecond, func() { e.m.Write32(regs.CMDQCtrl, regs.QueueAbort) })
			return e.c.NOP(e.ctx, false)
		}},
		{regs.RespSelfTestFail, regs.Detail(regs.TestEncaps), qverr.QUACSelfTest, func(e env) error {
			e.m.DropInterrupts(2) // of the events: what they make the driver do ends the command without its answer
			e.b.put(`{"self_test":2}`)
			_, err := e.c.SelfTest(e.ctx, regs.TestEncaps)
			return err
		}},
		{regs.RespQRNGDepleted, 0, qverr.PQCQRNG, func(e env) error {
			e.m.Write32(regs.QRNGControl, regs.QRNGHealthCheck|regs.QRNGConditioning) // no more filling
			for {
				if err := random(e); err != nil {
					return err
				}
			}
		}},
		{regs.RespQRNGHealth, 0, qverr.QUACQRNGHealth, func(e env) error {
			for i := range regs.QRNGSources {
				e.m.BiasSource(i, model.Bias{Stuck: true})
			}
			e.m.Write32(regs.QRNGControl, e.m.Read32(regs.QRNGControl)|regs.QRNGRestart)
			eventually(t, "the start-up test", func() bool { return e.m.Read32(regs.QRNGStatus)&regs.QRNGError != 0 })
			return random(e)
		}},
		{regs.RespOverTemp, regs.DetailThermal, qverr.QUACOvertemp, func(e env) error {
			e.b.put(`{"temperature":99}`)
			return e.c.Echo(e.ctx, make([]byte, 1), make([]byte, 1))
		}},
		{regs.RespFWError, 0, qverr.Generic, func(e env) error {
			e.m.DropInterrupts(1) // of the event, so that the driver does not reset the card first
			e.b.put(`{"firmware":true}`)
			return e.c.NOP(e.ctx, false)
		}},
		{regs.RespUnknown, 0, qverr.Generic, func(e env) error {
			e.m.DropInterrupts(1)
			e.b.put(`{"ecc":"uncorrected"}`)
			return e.c.NOP(e.ctx, false)
		}},
	} {
		t.Run(tc.status.String()+"/"+tc.detail.String(), func(t *testing.T) {
			c, m, _ := open(t, model.Config{}, quac100.WithTimeout(300*time.Millisecond), quac100.WithWatchdog(2*time.Second))
			err := tc.call(env{c, m, newBreaker(t, m), t.Context()})
			status, detail, _ := quac100.Reason(err)
			if status != tc.status || detail != tc.detail || qverr.CodeOf(err) != tc.code {
				t.Errorf("%v / %v, code %d (%v); want %v / %v, code %d", status, detail, qverr.CodeOf(err), err, tc.status, tc.detail, tc.code)
			}
			provokes(qverr.CodeOf(err))
			if table := qverr.FromResponse(qverr.Response(tc.status)); table != tc.code && tc.status != regs.RespCryptoFail {
				t.Errorf("the reference has code %d", table)
			}
		})
		seen[tc.status] = true
	}
	for _, e := range qverr.Responses() {
		if !seen[regs.RespStatus(e.Response)] {
			t.Errorf("%v is provoked by nothing", e)
		}
	}
}

// provoked are the codes that tests have seen, so that TestMain can tell of
// those that none provoked.
var provoked sync.Map

func provokes(code qverr.Code) { provoked.Store(code, true) }

// TestMain wants every code of the driver's range, -200 to -214, provoked by a
// test, when all tests run.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // they wait more than they work
	status := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""
	for code := qverr.Code(-200); all && status == 0 && code >= -214; code-- {
		if _, ok := provoked.Load(code); !ok {
			fmt.Printf("--- FAIL: no test has provoked %v\n", code)
			status = 1
		}
	}
	os.Exit(status)
}

// In the steady state no operation allocates.
func TestNoAllocation(t *testing.T) {
	if testing.CoverMode() != "" || raceEnabled {
		t.Skip("instrumented")
	}
	bus := newNullBus(t)
	c, err := quac100.Open(t.Context(), bus, quac100.WithWatchdog(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	bus.take(t)
	ctx, src, dst := t.Context(), make([]byte, 1000), make([]byte, 1000)
	key, ct, shared := quac100.Inline(make([]byte, 1184)), make([]byte, 1088), make([]byte, 32)
	b := c.NewBatch()
	for name, f := range map[string]func(){
		"NOP":         func() { _ = c.NOP(ctx, false) },
		"echo":        func() { _ = c.Echo(ctx, src, dst) },
		"encapsulate": func() { _ = c.Encapsulate(ctx, regs.MLKEM768, key, nil, ct, shared) },
		"random":      func() { _ = c.Random(ctx, dst) },
		"batch": func() {
			b.Reset()
			for range 32 {
				b.Encapsulate(regs.MLKEM768, key, nil, ct, shared)
			}
			_ = b.Run(ctx)
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
	bus.null.Store(false)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
