package pqc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
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
	"quantavirt/quac100/userbus"
	"quantavirt/quac100/vfiouser"
)

// slot is a place for a card: a model behind the vfio-user protocol, with its control
// socket. Each card that is put in is another connection.
type slot struct {
	t      *testing.T
	m      *model.Card
	path   string // of the protocol
	faults string // of the control socket
	end    func() error

	stop   context.CancelFunc // of the server; nil while the slot is empty
	served chan error
	buses  []*userbus.Bus
}

// inSlot is the address that all buses of this kind have.
const inSlot = "vfio-user"

func newSlot(t *testing.T) *slot {
	t.Helper()
	m, err := model.New(model.Config{HostMSIX: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &slot{t: t, m: m, path: filepath.Join(dir, "card.sock"), faults: filepath.Join(dir, "control.sock")}
	if p.end, err = faults.Serve(p.faults, m); err != nil {
		t.Fatal(err)
	}
	return p
}

// insert lets the card be found.
func (p *slot) insert() {
	p.t.Helper()
	l, err := vfiouser.Listen(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.served = stop, make(chan error, 1)
	go func() { p.served <- vfiouser.Serve(ctx, l, p.m, slog.New(slog.DiscardHandler)) }()
}

// pull ends the connection, as a host does that takes a card away.
func (p *slot) pull() {
	p.t.Helper()
	p.stop()
	if err := <-p.served; err != nil {
		p.t.Error(err)
	}
	p.stop = nil
}

func (p *slot) close() {
	if p.stop != nil {
		p.pull()
	}
	if err := errors.Join(p.end(), p.m.Close()); err != nil {
		p.t.Error(err)
	}
}

// put breaks the card, or mends it, by its control socket.
func (p *slot) put(body string) {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.faults)
	}}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, "http://card/faults", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
		p.t.Fatalf("%s: %s %s", body, resp.Status, text)
	}
}

// connection is a bus that ends with its card.
type connection struct {
	*userbus.Bus
	client *vfiouser.Client
}

func (c connection) Close() error { return errors.Join(c.Bus.Close(), c.client.Close()) }

// open is what SetCards opens a card with.
func (p *slot) open(ctx context.Context, address string) (*quac100.Card, error) {
	if address != inSlot {
		return nil, qverr.New(qverr.NoDev, "no card at %s", address)
	}
	client, err := vfiouser.Dial(p.path)
	if err != nil {
		return nil, qverr.New(qverr.NoDev, "the slot is empty: %w", err)
	}
	bus := userbus.New(client)
	p.buses = append(p.buses, bus)
	return quac100.Open(ctx, connection{bus, client}, quac100.WithResetLimit(time.Minute))
}

// service is a Service on the slot.
func (p *slot) service(addresses ...string) *Service {
	p.t.Helper()
	s, err := Open(p.t.Context(), Options{Cards: addresses, OpenCard: p.open})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// callers use a Service and check every result.
type callers struct {
	t       *testing.T
	s       *Service
	all     sync.WaitGroup
	stop    chan struct{}
	longest atomic.Int64 // call, in nanoseconds
	calls   atomic.Int64
}

func startCallers(t *testing.T, s *Service, n int) *callers {
	c := &callers{t: t, s: s, stop: make(chan struct{})}
	kem := newAgreement(t, s)
	for i := range n {
		c.all.Go(func() {
			// Some thousand calls a second in all: with more, software would leave the card no
			// processor, which here is one of ours.
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for turn := i; ; turn++ {
				select {
				case <-c.stop:
					return
				case <-pace.C:
				}
				started := time.Now()
				if err := kem.use(context.Background(), turn); err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
				took := time.Since(started).Nanoseconds()
				for old := c.longest.Load(); took > old && !c.longest.CompareAndSwap(old, took); old = c.longest.Load() {
				}
				c.calls.Add(1)
			}
		})
	}
	return c
}

func (c *callers) end() {
	close(c.stop)
	c.all.Wait()
}

// agreement is keys that callers share, loaded once.
type agreement struct {
	e    Encapsulator
	d    Decapsulator
	sign Signer
	see  Verifier
	aead AEAD
	s    *Service
}

func newAgreement(t *testing.T, s *Service) *agreement {
	t.Helper()
	ctx := t.Context()
	public, secret := generate(t, s, MLKEM768)
	verifying, signing := generate(t, s, MLDSA44)
	a := &agreement{s: s}
	var errs [5]error
	a.e, errs[0] = s.Encapsulator(ctx, MLKEM768, public)
	a.d, errs[1] = s.Decapsulator(ctx, MLKEM768, secret)
	a.sign, errs[2] = s.Signer(ctx, MLDSA44, signing)
	a.see, errs[3] = s.Verifier(ctx, MLDSA44, verifying)
	a.aead, errs[4] = s.AEAD(ctx, AES256GCM, counting(32))
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return a
}

var errWrong = errors.New("the result is wrong")

// use does one operation and its reverse.
func (a *agreement) use(ctx context.Context, turn int) error {
	message := fmt.Appendf(nil, "message %d", turn)
	switch turn % 4 {
	case 0:
		ciphertext, one, two := make([]byte, 1088), make([]byte, 32), make([]byte, 32)
		if err := a.e.Encapsulate(ctx, ciphertext, one); err != nil {
			return err
		}
		if err := a.d.Decapsulate(ctx, two, ciphertext); err != nil || !bytes.Equal(one, two) {
			return errors.Join(errWrong, err)
		}
	case 1:
		signature := make([]byte, 2420)
		if err := a.sign.Sign(ctx, signature, message, nil); err != nil {
			return err
		}
		return a.see.Verify(ctx, message, signature, nil)
	case 2:
		sealed, err := a.aead.Seal(ctx, nil, counting(12), message, nil)
		if err != nil {
			return err
		}
		if got, err := a.aead.Open(ctx, nil, counting(12), sealed, nil); err != nil || !bytes.Equal(got, message) {
			return errors.Join(errWrong, err)
		}
	default:
		p := make([]byte, 64)
		if err := a.s.Random(ctx, p); err != nil || bytes.Equal(p, make([]byte, 64)) {
			return errors.Join(errWrong, err)
		}
	}
	return nil
}

// held is what a process has of the things that a lost card must not keep.
type held struct{ goroutines, descriptors, mappings int }

func holds(t *testing.T) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(fds), strings.Count(string(maps), "memfd:quac100")}
}

func eventually(t *testing.T, what string, done func() bool) time.Duration {
	t.Helper()
	started := time.Now()
	for limit := started.Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
	return time.Since(started)
}

// rounds of removal and return: 2, or 25 with QV_SOAK.
func plugRounds() int {
	if full() {
		return 25
	}
	return 2
}

// A card is pulled out under 32 callers and comes back: none of them gets an error or a
// wrong result, or waits; software serves meanwhile, and then the card again. Nothing of
// a lost card is kept.
func TestRemovalUnderLoad(t *testing.T) {
	for name, c := range map[string]struct{ pull, back func(p *slot, s *Service) }{
		"it stops answering": {
			func(p *slot, _ *Service) { p.put(`{"present":false}`) },
			func(p *slot, _ *Service) { p.put(`{"present":true}`) },
		},
		"its slot is emptied": {
			func(p *slot, s *Service) { p.pull() },
			func(p *slot, s *Service) { p.insert(); s.SetCards(p.t.Context(), []string{inSlot}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := holds(t)
			p := newSlot(t)
			p.insert()
			s := p.service(inSlot)
			load := startCallers(t, s, 32)
			var noticed, returned time.Duration
			for range plugRounds() {
				used := s.Status(t.Context()).CardCalls
				eventually(t, "work on the card", func() bool { return s.calls[1].Load() > used+200 })
				c.pull(p, s)
				noticed = max(noticed, eventually(t, "the loss to be seen", func() bool { return s.Name() == "software" }))
				soft := s.calls[0].Load()
				eventually(t, "work in software", func() bool { return s.calls[0].Load() > soft+200 })
				c.back(p, s)
				returned = max(returned, eventually(t, "the return", func() bool { return s.Name() == "quac100" }))
				answered := s.cards.pool.Cards()[0].Stats().OK
				eventually(t, "work on the card again", func() bool { return s.cards.pool.Cards()[0].Stats().OK > answered+200 })
			}
			load.end()
			longest := time.Duration(load.longest.Load())
			st := s.Status(t.Context())
			t.Logf("%d calls of 32 callers, %d on the card and %d in software, %d switches; the longest took %s; the loss was seen after %s, the return after %s",
				load.calls.Load(), st.CardCalls, st.SoftwareCalls, st.Switches, longest.Round(time.Millisecond), noticed.Round(time.Millisecond), returned.Round(time.Millisecond))
			if longest > 6*time.Second {
				t.Errorf("a caller waited for %s", longest)
			}
			if st.Switches < 2*uint64(plugRounds()) {
				t.Errorf("%d switches of provider", st.Switches)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			for i, bus := range p.buses {
				if n := bus.Leaked(); n != 0 {
					t.Errorf("connection %d: %d DMA buffers are left", i, n)
				}
			}
			p.close()
			var after held
			eventually(t, "what the card had to go", func() bool {
				after = holds(t)
				return after.goroutines <= before.goroutines && after.mappings <= before.mappings && after.descriptors <= before.descriptors
			})
			t.Logf("before %+v, after %+v", before, after)
		})
	}
}

// SetCards takes in what is new and gives back what is gone, and nothing else; a card that
// fails its self-test is left out until it is named again in a better state.
func TestSetCards(t *testing.T) {
	p := newSlot(t)
	defer p.close()
	s := p.service()
	defer func() { _ = s.Close() }()
	expect := func(when, provider string, code qverr.Code) {
		t.Helper()
		st := s.Status(t.Context())
		if got := qverr.CodeOf(st.CardError); st.Provider != provider || got != code {
			t.Errorf("%s: %s, %v", when, st.Provider, st.CardError)
		}
	}
	set := func(addresses ...string) { s.SetCards(t.Context(), addresses) }
	expect("no card", "software", qverr.QUACNotFound)
	set(inSlot)
	expect("an empty slot", "software", qverr.NoDev)
	p.insert()
	p.m.FailSelfTest(regs.TestSign)
	set(inSlot)
	expect("a card that fails its self-test", "software", qverr.QUACSelfTest)
	p.m.FailSelfTest(0)
	set(inSlot, "0000:00:09.0")
	expect("a good card beside one that is not there", "quac100", qverr.Success)
	card := s.cards.pool.Cards()[0]
	set(inSlot)
	if now := s.cards.pool.Cards(); len(now) != 1 || now[0] != card {
		t.Error("a card that stays was opened anew")
	}
	serial, handle, err := s.GenerateStored(t.Context(), MLDSA44, make([]byte, 1312))
	if err != nil {
		t.Fatal(err)
	}
	set()
	expect("taken away", "software", qverr.QUACNotFound)
	if err := card.NOP(t.Context(), false); qverr.CodeOf(err) != qverr.QUACNotFound {
		t.Errorf("a card that was given back: %v", err)
	}
	sign := func() error {
		return s.SignStored(t.Context(), serial, handle, MLDSA44, make([]byte, 2420), []byte("m"), nil)
	}
	if err := sign(); qverr.CodeOf(err) != qverr.QUACNotFound {
		t.Errorf("a key of the card that is gone: %v", err)
	}
	set(inSlot)
	expect("back", "quac100", qverr.Success)
	if err := sign(); err != nil {
		t.Errorf("a key of the card that is back: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	set(inSlot)
	if n := len(s.cards.pool.Cards()); n != 0 {
		t.Errorf("%d cards in a closed service", n)
	}
}
