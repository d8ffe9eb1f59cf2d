package quac100_test

import (
	"bytes"
	"context"
	"crypto/mlkem"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/faults"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// breaker puts faults into a model by its control socket.
type breaker struct {
	t  *testing.T
	hc *http.Client
}

func newBreaker(t *testing.T, m *model.Card) *breaker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	end, err := faults.Serve(path, m)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return &breaker{t, &http.Client{Transport: tr}}
}

func (b *breaker) put(body string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://card/faults", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.hc.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		b.t.Fatalf("%s: %s %s", body, resp.Status, text)
	}
}

// load is callers that check every result: a wrong one is a failure of the
// test, an error is counted by its code.
type load struct {
	t     *testing.T
	stop  chan struct{}
	all   sync.WaitGroup
	good  atomic.Int64
	mu    sync.Mutex
	codes map[qverr.Code]int
}

func startLoad(t *testing.T, c *quac100.Card) *load {
	t.Helper()
	peer, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, stop: make(chan struct{}), codes: make(map[qverr.Code]int)}
	public := peer.EncapsulationKey().Bytes()
	for i := range 8 {
		l.all.Go(func() {
			src := seeded(fmt.Sprint("load", i), 100+i*700)
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				l.count(echoed(c, src))
				l.count(agreed(c, peer, public))
			}
		})
	}
	eventually(t, "the load", func() bool { return l.good.Load() > 16 })
	return l
}

type wrongResult struct{ what string }

func (w wrongResult) Error() string { return w.what }

func echoed(c *quac100.Card, src []byte) error {
	dst := make([]byte, len(src))
	if err := c.Echo(context.Background(), src, dst); err != nil {
		return err
	}
	if !bytes.Equal(src, dst) {
		return wrongResult{"an echo is not what was sent"}
	}
	return nil
}

func agreed(c *quac100.Card, peer *mlkem.DecapsulationKey768, public []byte) error {
	ct, shared := make([]byte, 1088), make([]byte, 32)
	if err := c.Encapsulate(context.Background(), regs.MLKEM768, quac100.Inline(public), nil, ct, shared); err != nil {
		return err
	}
	if got, err := peer.Decapsulate(ct); err != nil || !bytes.Equal(got, shared) {
		return wrongResult{"the peer has another key"}
	}
	return nil
}

func (l *load) count(err error) {
	if err == nil {
		l.good.Add(1)
		return
	}
	if w, wrong := err.(wrongResult); wrong {
		l.t.Error(w)
	}
	l.mu.Lock()
	l.codes[qverr.CodeOf(err)]++
	l.mu.Unlock()
	if qverr.CodeOf(err) != qverr.Success { // a caller that has nowhere else to go does not spin
		time.Sleep(time.Millisecond)
	}
}

func (l *load) saw(code qverr.Code) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.codes[code] > 0
}

// end stops the callers and checks that they saw no other codes than these.
func (l *load) end(allowed ...qverr.Code) {
	l.t.Helper()
	close(l.stop)
	l.all.Wait()
	for _, code := range allowed {
		delete(l.codes, code)
	}
	if len(l.codes) > 0 {
		l.t.Errorf("codes that do not belong to the fault: %v", l.codes)
	}
}

// serves waits until the card works, and takes a fair amount of work in peace.
func (l *load) serves(c *quac100.Card) {
	l.t.Helper()
	from := l.good.Load()
	eventually(l.t, "service again", func() bool { return c.Healthy() == nil && l.good.Load() > from+16 })
}

// Faults that the card or the driver get over by themselves, under load. what
// each needs to show is waited for; then the fault ends and the card serves.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault string
		end   string
		codes []qverr.Code // all that callers may see
		seen  qverr.Code   // that they must see
		until func(c *quac100.Card, s quac100.Stats) bool
	}{
		{"one NTT fault", `{"crypto":1}`, ``, []qverr.Code{qverr.QUACNTT}, qverr.QUACNTT, nil},
		{"an NTT engine that is broken", `{"crypto":50}`, `{"crypto":0}`, []qverr.Code{qverr.QUACNTT, qverr.QUACSelfTest}, qverr.QUACNTT,
			func(_ *quac100.Card, s quac100.Stats) bool { return s.Recoveries > 0 }},
		{"heat", `{"temperature":96}`, `{"temperature":45}`, []qverr.Code{qverr.QUACOvertemp}, qverr.QUACOvertemp,
			func(c *quac100.Card, _ quac100.Stats) bool { return qverr.CodeOf(c.Healthy()) == qverr.QUACOvertemp }},
		{"more heat", `{"temperature":106}`, `{"temperature":45}`, []qverr.Code{qverr.QUACOvertemp}, qverr.QUACOvertemp,
			func(c *quac100.Card, _ quac100.Stats) bool { return qverr.CodeOf(c.Healthy()) == qverr.QUACOvertemp }},
		{"too much power", `{"power_mw":80000}`, `{"power_mw":25000}`, nil, 0,
			func(_ *quac100.Card, s quac100.Stats) bool { return s.Events["power"] > 0 }},
		{"no auxiliary power", `{"aux_mv":0}`, `{"aux_mv":3300}`, nil, 0,
			func(c *quac100.Card, _ quac100.Stats) bool { return qverr.CodeOf(c.Healthy()) == qverr.QUACPower }},
		{"one DMA fault", `{"dma":{"direction":"write","at_least":100,"count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, nil},
		{"DMA faults of the rings", `{"dma":{"direction":"read","at_least":64,"count":2}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, nil},
		{"DMA faults of responses", `{"dma":{"direction":"write","count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, nil},
		{"one lost interrupt", `{"drop_interrupts":1}`, ``, nil, 0, nil},
		{"no interrupts", `{"drop_interrupts":-1}`, `{"drop_interrupts":0}`, nil, 0,
			func(_ *quac100.Card, s quac100.Stats) bool { return s.LostInterrupts > 0 }},
		{"a hang", `{"hang":"soft"}`, ``, []qverr.Code{qverr.QUACWatchdog}, qverr.QUACWatchdog,
			func(_ *quac100.Card, s quac100.Stats) bool {
				return s.SoftResets == 1 && s.FunctionResets == 0 && s.Recoveries == 1
			}},
		{"a harder hang", `{"hang":"flr"}`, ``, []qverr.Code{qverr.QUACWatchdog}, qverr.QUACWatchdog,
			func(_ *quac100.Card, s quac100.Stats) bool {
				return s.SoftResets == 1 && s.FunctionResets == 1 && s.Recoveries == 1
			}},
		{"commands that hang", `{"hang_commands":3}`, ``, []qverr.Code{qverr.QUACWatchdog}, qverr.QUACWatchdog, nil},
		{"a wrong tag", `{"corrupt":{"what":"tag","count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, recovered},
		{"a wrong opcode", `{"corrupt":{"what":"opcode","count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, recovered},
		{"a wrong length", `{"corrupt":{"what":"length","count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, recovered},
		{"a response twice", `{"corrupt":{"what":"twice","count":1}}`, ``, []qverr.Code{qverr.QUACDMA}, qverr.QUACDMA, recovered},
		{"a corrected memory error", `{"ecc":"corrected"}`, `{"ecc":"none"}`, nil, 0, nil},
		{"a memory error", `{"ecc":"uncorrected"}`, ``, []qverr.Code{qverr.Generic, qverr.QUACWatchdog}, 0, recovered},
		{"the firmware dies", `{"firmware":true}`, ``, []qverr.Code{qverr.Generic, qverr.QUACWatchdog}, 0, recovered},
		{"pulled out", `{"present":false}`, `{"present":true}`, []qverr.Code{qverr.QUACNotFound}, qverr.QUACNotFound,
			func(c *quac100.Card, _ quac100.Stats) bool { return qverr.CodeOf(c.Healthy()) == qverr.QUACNotFound }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, m, _ := open(t, model.Config{}, quac100.WithTimeout(2*time.Second), quac100.WithWatchdog(50*time.Millisecond))
			b := newBreaker(t, m)
			l := startLoad(t, c)
			b.put(tc.fault)
			if tc.seen != 0 {
				eventually(t, fmt.Sprintf("code %d", tc.seen), func() bool { return l.saw(tc.seen) })
			}
			if tc.until != nil {
				eventually(t, "the effect", func() bool { return tc.until(c, c.Stats()) })
			}
			if tc.end != "" {
				b.put(tc.end)
			}
			l.serves(c)
			l.end(tc.codes...)
			if n := c.Stats().InFlight; n != 0 {
				t.Errorf("%d commands are still in flight", n)
			}
		})
	}
}

func recovered(_ *quac100.Card, s quac100.Stats) bool { return s.Recoveries > 0 }

// Faults after which the driver gives the card up: every caller is told so, and
// an operator's reset brings it back once the fault is gone.
func TestGivenUp(t *testing.T) {
	for _, tc := range []struct {
		name, fault string
		provoke     func(c *quac100.Card)
		code        qverr.Code
	}{
		{"a hang without end", `{"hang":"forever"}`, func(*quac100.Card) {}, qverr.QUACWatchdog},
		{"a self-test that fails", `{"self_test":1}`, func(c *quac100.Card) { _, _ = c.SelfTest(context.Background(), regs.TestKEMKeygen) }, qverr.QUACSelfTest},
		{"tamper", `{"tamper":true}`, func(*quac100.Card) {}, qverr.QUACSelfTest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, m, _ := open(t, model.Config{}, quac100.WithTimeout(2*time.Second), quac100.WithWatchdog(50*time.Millisecond))
			b := newBreaker(t, m)
			l := startLoad(t, c)
			b.put(tc.fault)
			tc.provoke(c)
			eventually(t, "the end", func() bool { return qverr.CodeOf(c.Healthy()) == tc.code && !c.Recovering() })
			if got := qverr.CodeOf(c.NOP(t.Context(), false)); got != tc.code {
				t.Errorf("code %d, want %d", got, tc.code)
			}
			b.put(`{"clear":true}`)
			if err := c.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.serves(c)
			l.end(tc.code, qverr.Again, qverr.QUACSelfTest)
		})
	}
}

// A QRNG that fails: randomness is refused, all else goes on, and the driver
// starts it anew until its sources are good again.
func TestQRNGFault(t *testing.T) {
	c, m, _ := open(t, model.Config{}, quac100.WithWatchdog(50*time.Millisecond))
	b := newBreaker(t, m)
	var all []string
	for i := range regs.QRNGSources {
		all = append(all, fmt.Sprintf(`{"source":%d,"stuck":true}`, i))
	}
	b.put(`{"bias":[` + strings.Join(all, ",") + `]}`)
	p := make([]byte, 1<<16)
	eventually(t, "an alarm", func() bool {
		return qverr.CodeOf(c.ReadRandom(t.Context(), regs.QualityHigh, p)) == qverr.QUACQRNGHealth
	})
	if err := c.Echo(t.Context(), []byte{1}, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if failed, err := c.TestQRNG(t.Context()); qverr.CodeOf(err) != qverr.QUACQRNGHealth || failed&regs.StatRCT == 0 {
		t.Errorf("%#x, %v", failed, err)
	}
	b.put(`{"clear":true}`)
	eventually(t, "good randomness", func() bool { return c.Random(t.Context(), p) == nil })
}

// A source that is biased, but not stuck, leaves the others to work.
func TestQRNGBias(t *testing.T) {
	c, m, _ := open(t, model.Config{})
	newBreaker(t, m).put(`{"bias":[{"source":3,"part":0.5,"value":7}]}`)
	p := make([]byte, 1<<16)
	eventually(t, "the bias to be found", func() bool {
		if err := c.ReadRandom(t.Context(), regs.QualityHigh, p); err != nil && qverr.CodeOf(err) != qverr.PQCQRNG {
			t.Fatal(err)
		}
		return m.Read32(regs.QRNGSrcOK) == 0xFF&^(1<<3)
	})
	if err := c.Random(t.Context(), p); err != nil {
		t.Error(err)
	}
}

// Two cards: when one is pulled out under load, nobody sees an error, and it
// takes its part again when it is back.
func TestPool(t *testing.T) {
	a, m, _ := open(t, model.Config{}, quac100.WithWatchdog(50*time.Millisecond))
	c, _, _ := open(t, model.Config{}, quac100.WithWatchdog(50*time.Millisecond))
	p := quac100.NewPool(a)
	p.Add(c)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var good atomic.Int64
	for i := range 8 {
		all.Go(func() {
			src := seeded(fmt.Sprint(i), 1000)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.Do(context.Background(), func(_ context.Context, c *quac100.Card) error { return echoed(c, src) }); err != nil {
					t.Error(err)
					return
				}
				good.Add(1)
			}
		})
	}
	eventually(t, "work on both", func() bool { return a.Stats().OK > 100 && c.Stats().OK > 100 })
	m.SetPresent(false)
	pulled := time.Now()
	eventually(t, "the loss to be seen", func() bool { return a.Healthy() != nil })
	took := time.Since(pulled)
	t.Logf("callers moved %s after the card was pulled out", took)
	if took > 6*time.Second {
		t.Errorf("that is too long")
	}
	from := good.Load()
	eventually(t, "work on the other", func() bool { return good.Load() > from+100 })
	m.SetPresent(true)
	eventually(t, "its return", func() bool { return a.Healthy() == nil })
	before := a.Stats().OK
	eventually(t, "work on it again", func() bool { return a.Stats().OK > before+100 })
	close(stop)
	all.Wait()
	if !p.Remove(a) || p.Remove(a) || len(p.Cards()) != 1 {
		t.Errorf("%d cards", len(p.Cards()))
	}
	m.Tamper()
	p.Add(a)
	eventually(t, "the tampering to be seen", func() bool { return a.Healthy() != nil })
	if err := p.Healthy(); err != nil {
		t.Error(err)
	}
	if err := quac100.NewPool().Do(t.Context(), nil); qverr.CodeOf(err) != qverr.QUACNotFound {
		t.Errorf("a pool of nothing: %v", err)
	}
}
