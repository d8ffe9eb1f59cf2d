package quac100

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Card is a card in service. Its methods may be called from any goroutine.
type Card struct {
	bus     Bus
	opts    options
	caps    atomic.Uint32 // regs.Caps; another firmware may have others
	ring    *ring
	pool    *pool
	stats   counters
	callers gate // those that use ring and pool

	failure    atomic.Pointer[fault] // why no work is taken; nil while it is
	degraded   atomic.Pointer[fault] // why work should go elsewhere, although it is taken
	recovering atomic.Bool

	troubles chan error    // for the supervisor
	events   chan struct{} // interrupts other than of responses
	stopping chan struct{}
	lost     chan struct{} // see Removed
	losing   sync.Once
	closing  sync.Once
	world    sync.WaitGroup

	period time.Duration // of the heartbeat

	reset sync.Mutex // bring-up, recovery, reset and close, one at a time
	known bool       // the register interface is verified: it may be written to
	done  bool       // closed

	updating sync.Mutex // the firmware, one at a time
	counting sync.Mutex // snapshots of counters

	ladder ladder
}

// fault is an error behind an atomic pointer.
type fault struct{ err error }

const (
	resetLimit = 5 * time.Second        // section 17
	stepLimit  = 500 * time.Millisecond // other short waits

	interruptLimit = 2 * time.Second // of the first command, also on an emulated and busy machine
)

// Open brings the card on bus up (section 20) and owns the bus from then on,
// also when it fails. QUACNotFound: not this card or gone. QUACFWVersion: an
// interface that this driver does not know. QUACSelfTest, QUACWatchdog,
// QUACMMIO, QUACPower, QUACRingInit, QUACDMA, QUACInterrupt: the step that
// failed.
func Open(ctx context.Context, bus Bus, opts ...Option) (*Card, error) {
	c := &Card{
		bus: bus, opts: defaults(), troubles: make(chan error, 1), events: make(chan struct{}, 1), stopping: make(chan struct{}),
		lost: make(chan struct{}), callers: newGate(),
	}
	for _, o := range opts {
		o(&c.opts)
	}
	c.reset.Lock()
	defer c.reset.Unlock()
	if err := c.bringUp(ctx); err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	now := time.Now()
	c.ladder.heartAt, c.ladder.movedAt = now, now
	c.world.Go(c.supervise)
	return c, nil
}

func (c *Card) bringUp(ctx context.Context) error {
	steps := []func(context.Context) error{
		c.identify, c.enableBus, c.awaitReset, c.checkInterface, c.softReset, c.testRegisters,
		c.makeRings, c.connectInterrupts, c.startInterrupts, c.enable, c.tryOut,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			c.stopHardware()
			return err
		}
	}
	return nil
}

// identify compares the configuration space: step 1.
func (c *Card) identify(context.Context) error {
	var cfg [0x30]byte
	if err := c.bus.ReadConfig(0, cfg[:]); err != nil {
		return qverr.New(qverr.QUACDriver, "read the configuration of card %s: %w", c.bus.Address(), err)
	}
	id := binary.LittleEndian.Uint32(cfg[regs.CfgID:])
	class := binary.LittleEndian.Uint32(cfg[regs.CfgClassRev:])
	sub := binary.LittleEndian.Uint32(cfg[regs.CfgSubsystem:])
	if id != regs.IDWord || class != regs.Class<<8|regs.Revision || sub != regs.IDWord {
		return qverr.New(qverr.QUACNotFound, "%s is no QUAC 100: id %#08x, class and revision %#08x, subsystem %#08x",
			c.bus.Address(), id, class, sub)
	}
	return nil
}

func (c *Card) enableBus(context.Context) error {
	return c.command(regs.CommandMemory|regs.CommandBusMaster, 0)
}

// command sets and clears bits of the PCI command register.
func (c *Card) command(set, clear uint16) error {
	var word [2]byte
	if err := c.bus.ReadConfig(regs.CfgCommand, word[:]); err != nil {
		return qverr.New(qverr.QUACDriver, "PCI command of card %s: %w", c.bus.Address(), err)
	}
	v := binary.LittleEndian.Uint16(word[:])&^clear | set
	binary.LittleEndian.PutUint16(word[:], v)
	if err := c.bus.WriteConfig(regs.CfgCommand, word[:]); err != nil {
		return qverr.New(qverr.QUACDriver, "PCI command of card %s: %w", c.bus.Address(), err)
	}
	return nil
}

// checkInterface only reads: silicon that the driver does not know must not be
// programmed (steps 3 and 4).
func (c *Card) checkInterface(context.Context) error {
	if id := c.bus.Read32(regs.DevID); id != regs.IDWord {
		return qverr.New(qverr.QUACNotFound, "card %s answers DEV_ID %#08x", c.bus.Address(), id)
	}
	_, minor, major := regs.Rev(c.bus.Read32(regs.DevRev))
	if major != regs.InterfaceMajor {
		return qverr.New(qverr.QUACFWVersion, "card %s has register interface %d.%d, this driver knows %d",
			c.bus.Address(), major, minor, regs.InterfaceMajor)
	}
	c.caps.Store(c.bus.Read32(regs.DevCaps))
	if c.Caps()&regs.CapSimulator == 0 {
		return qverr.New(qverr.QUACFWVersion, "card %s is not the simulator and its register map is not verified", c.bus.Address())
	}
	caps2 := regs.Caps2(c.bus.Read32(regs.DevCaps2))
	if caps2.CommandSize() != regs.CommandSize || caps2.ResponseSize() != regs.ResponseSize || caps2.MaxRing() < c.opts.ring {
		return qverr.New(qverr.QUACFWVersion, "card %s has entries of %d and %d bytes and rings of at most %d",
			c.bus.Address(), caps2.CommandSize(), caps2.ResponseSize(), caps2.MaxRing())
	}
	c.known = true
	return nil
}

// awaitReset waits for the end of a reset under way, as opening the device
// through VFIO makes one: until then most registers read 0.
func (c *Card) awaitReset(ctx context.Context) error {
	_, err := c.settle(ctx)
	return err
}

// settle polls until the card is READY or in ERROR.
func (c *Card) settle(ctx context.Context) (status regs.Status, err error) {
	err = c.poll(ctx, c.opts.reset, func() (bool, error) {
		if id := c.bus.Read32(regs.DevID); id != regs.IDWord {
			return false, qverr.New(qverr.QUACNotFound, "card %s answers DEV_ID %#08x", c.bus.Address(), id)
		}
		status = regs.Status(c.bus.Read32(regs.DevStatus))
		return status&(regs.StatusReady|regs.StatusError) != 0 && status&regs.StatusInitializing == 0, nil
	})
	if errors.Is(err, errPoll) {
		err = qverr.New(qverr.QUACWatchdog, "card %s was not ready %s after a reset (status %#x)", c.bus.Address(), c.opts.reset, uint32(status))
	}
	return status, err
}

// softReset is step 5.
func (c *Card) softReset(ctx context.Context) error {
	c.bus.Write32(regs.Reset, regs.ResetSoft)
	status, err := c.settle(ctx)
	if err != nil {
		return err
	}
	if status&regs.StatusError != 0 {
		failed := regs.SelfTest(c.bus.Read32(regs.SelfTestResult))
		return qverr.New(qverr.QUACSelfTest, "card %s failed its self-test: %s", c.bus.Address(), strings.Join(failed.Names(), ", "))
	}
	return nil
}

// testRegisters is steps 6 and 7.
func (c *Card) testRegisters(ctx context.Context) error {
	for _, pattern := range []uint32{0xA5A55A5A, 0x5A5AA5A5} {
		c.bus.Write32(regs.Scratch0, pattern)
		if got := c.bus.Read32(regs.Scratch0); got != pattern {
			return qverr.New(qverr.QUACMMIO, "card %s: SCRATCH0 reads %#x after %#x was written", c.bus.Address(), got, pattern)
		}
	}
	c.bus.Write32(regs.ErrStatus, c.bus.Read32(regs.ErrStatus))
	c.bus.Write32(regs.CMDQTimeoutMS, uint32(c.opts.timeout.Milliseconds()))
	if mv := c.bus.Read32(regs.VAuxMV); mv < auxLowMV {
		return qverr.New(qverr.QUACPower, "card %s has %d mV of auxiliary power, needs %d", c.bus.Address(), mv, auxLowMV)
	}
	return c.heartbeat(ctx)
}

// heartbeat waits until the firmware shows that it is alive, for three of its
// periods.
func (c *Card) heartbeat(ctx context.Context) error {
	first := c.bus.Read32(regs.Heartbeat)
	c.period = time.Duration(min(c.bus.Read32(regs.HBPeriodMS), 1000)) * time.Millisecond
	err := c.poll(ctx, 3*c.period, func() (bool, error) { return c.bus.Read32(regs.Heartbeat) != first, nil })
	if errors.Is(err, errPoll) {
		return qverr.New(qverr.QUACWatchdog, "card %s: the firmware's heartbeat stands still", c.bus.Address())
	}
	return err
}

// makeRings is step 8: memory that lasts as long as the card is open.
func (c *Card) makeRings(context.Context) (err error) {
	if c.pool, err = newPool(c.bus, c.opts.poolLimit); err != nil {
		return qverr.New(qverr.QUACDMA, "buffers of card %s: %w", c.bus.Address(), err)
	}
	if c.ring, err = newRing(c.bus, &c.opts, c.pool, &c.stats, c.trouble); err != nil {
		return qverr.New(qverr.QUACRingInit, "rings of card %s: %w", c.bus.Address(), err)
	}
	c.pool.ring = c.ring
	return nil
}

// connectInterrupts lets vector 1 tell of responses, the others of events.
func (c *Card) connectInterrupts(context.Context) error {
	return c.bus.Interrupts(regs.MSIXVectors, func(vector int) {
		if vector == regs.VectorResponses {
			c.stats.interrupts.Add(1)
			c.ring.wake()
			return
		}
		select {
		case c.events <- struct{}{}:
		default: // it is already going to look
		}
	})
}

// wanted are the causes that the driver acts on.
var wanted = regs.CauseRspAvail.Mask() | regs.CauseError.Mask() | regs.CauseFatal.Mask() | regs.CauseCMDQHalt.Mask() |
	regs.CauseDMAError.Mask() | regs.CauseCryptoError.Mask() | regs.CauseTemp.Mask() | regs.CausePower.Mask() | regs.CauseThrottle.Mask() |
	regs.CauseTamper.Mask() | regs.CauseKeyEvent.Mask() | regs.CauseQRNGHealth.Mask() | regs.CauseSelfTestDone.Mask()

// startInterrupts is step 9.
func (c *Card) startInterrupts(context.Context) error {
	c.bus.Write32(regs.IntCause, ^uint32(0))
	c.bus.Write32(regs.IntEnable, wanted)
	c.bus.Write32(regs.IntMask, 0)
	return nil
}

// enable is step 10.
func (c *Card) enable(context.Context) error {
	c.bus.Write32(regs.DMAControl, regs.DMAEnable|regs.DMASG)
	c.bus.Write32(regs.DevControl, uint32(regs.ControlRun))
	return c.ring.start()
}

// tryOut is step 11: only a card that says by interrupts that it answers, moves
// data and gives randomness works.
func (c *Card) tryOut(ctx context.Context) error {
	if err := c.tryInterrupt(ctx); err != nil {
		return err
	}
	sent := []byte("quantavirt: echo through the IOMMU")
	got := make([]byte, len(sent))
	q := request{cmd: regs.Command{Opcode: regs.OpEcho}, dst0: got, own: true}
	q.src0[0] = sent
	if err := c.run(ctx, &q); err != nil {
		return err
	}
	if string(got) != string(sent) {
		return qverr.New(qverr.QUACDMA, "card %s echoed other bytes than it was sent", c.bus.Address())
	}
	return c.run(ctx, &request{cmd: regs.Command{Opcode: regs.OpQRNGRead}, dst0: make([]byte, 32), own: true})
}

// tryInterrupt sends a NOP and wants an interrupt for it. A response without
// one is found by looking.
func (c *Card) tryInterrupt(ctx context.Context) error {
	before := c.stats.interrupts.Load()
	look := time.AfterFunc(interruptLimit, c.ring.wake)
	defer look.Stop()
	limited, cancel := context.WithTimeout(ctx, 2*interruptLimit)
	defer cancel()
	err := c.run(limited, &request{cmd: regs.Command{Opcode: regs.OpNOP}, own: true})
	if qverr.CodeOf(err) == qverr.Timeout && ctx.Err() == nil {
		return qverr.New(qverr.QUACWatchdog, "card %s does not answer its first command: %w", c.bus.Address(), err)
	}
	if err == nil && c.stats.interrupts.Load() == before && c.opts.completion != Polling {
		return qverr.New(qverr.QUACInterrupt, "card %s answers, but its interrupt does not arrive", c.bus.Address())
	}
	return err
}

var errPoll = errors.New("time is over")

// poll asks for a state that the card has no interrupt for, every other millisecond.
func (c *Card) poll(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return errPoll
		case <-tick.C:
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
}

// Healthy is nil while the card takes work and works as it should. A card that
// is too hot to work says so here.
func (c *Card) Healthy() error {
	for _, p := range []*atomic.Pointer[fault]{&c.failure, &c.degraded} {
		if f := p.Load(); f != nil {
			return f.err
		}
	}
	return nil
}

// fail ends the taking of work with a reason; what is in flight is answered
// with it.
func (c *Card) fail(err error) {
	c.failure.Store(&fault{err})
	c.ring.abort(err)
}

// Close stops the card in order: no new work, what is in flight ends, then
// queues, interrupts and memory go.
func (c *Card) Close() error {
	c.closing.Do(func() { close(c.stopping) }) // a recovery under way ends
	c.reset.Lock()
	defer c.reset.Unlock()
	if c.done {
		return nil
	}
	c.done = true
	gone := c.given()
	if c.failure.CompareAndSwap(nil, &fault{gone}) {
		c.ring.drained(stepLimit)
	}
	c.ring.abort(gone)
	c.callers.close()
	c.stopHardware()
	err := c.bus.Close()
	c.reset.Unlock()
	c.world.Wait()
	c.reset.Lock()
	c.losing.Do(func() { close(c.lost) })
	return err
}

// given is why a closed card takes no work.
func (c *Card) given() error {
	return qverr.New(qverr.QUACNotFound, "card %s is given back", c.bus.Address())
}

// Removed is closed when the card was taken out of the machine, or the host wants it
// back: its owner must Close it then, and the kernel waits for that. Close closes it too.
func (c *Card) Removed() <-chan struct{} { return c.lost }

// stopHardware quiesces a card in any state and frees what it could write to.
func (c *Card) stopHardware() {
	if c.known && c.bus.Read32(regs.DevID) == regs.IDWord {
		c.bus.Write32(regs.CMDQCtrl, 0)
		c.bus.Write32(regs.Reset, regs.ResetSoft) // drops what is left; no later write to our memory
		_ = c.poll(context.Background(), c.opts.reset, func() (bool, error) {
			return regs.Status(c.bus.Read32(regs.DevStatus))&regs.StatusInitializing == 0, nil
		})
		c.bus.Write32(regs.IntEnable, 0)
		c.bus.Write32(regs.DevControl, 0)
	}
	_ = c.command(0, regs.CommandBusMaster)
	if c.ring != nil {
		c.ring.close()
	}
	if c.pool != nil {
		c.pool.close()
	}
}
