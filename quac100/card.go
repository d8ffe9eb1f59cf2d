package quac100

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Card is a card in service. Its methods may be called from any goroutine.
type Card struct {
	bus  Bus
	caps regs.Caps
	ring *ring
	pool *pool

	mu     sync.Mutex
	failed error // why no more work is taken
	closed bool
	known  bool // the register interface is verified: it may be written to
}

const (
	resetLimit     = 5 * time.Second        // section 17
	commandTimeout = 30 * time.Second       // CMDQ_TIMEOUT_MS, section 14.3 advises it
	stepLimit      = 500 * time.Millisecond // other short waits
)

// Open brings the card on bus up (section 20) and owns the bus from then on,
// also when it fails. QUACNotFound: not this card or gone. QUACFWVersion: an
// interface that this driver does not know. QUACSelfTest, QUACWatchdog,
// QUACRingInit, QUACDMA, QUACInterrupt: the step that failed.
func Open(ctx context.Context, bus Bus) (*Card, error) {
	c := &Card{bus: bus}
	if err := c.bringUp(ctx); err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	return c, nil
}

func (c *Card) bringUp(ctx context.Context) error {
	steps := []func(context.Context) error{
		c.identify, c.enableBus, c.awaitReset, c.checkInterface, c.softReset, c.testRegisters,
		c.startRings, c.startInterrupts, c.run, c.tryOut,
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
	c.caps = regs.Caps(c.bus.Read32(regs.DevCaps))
	if c.caps&regs.CapSimulator == 0 {
		return qverr.New(qverr.QUACFWVersion, "card %s is not the simulator and its register map is not verified", c.bus.Address())
	}
	caps2 := regs.Caps2(c.bus.Read32(regs.DevCaps2))
	if caps2.CommandSize() != regs.CommandSize || caps2.ResponseSize() != regs.ResponseSize || caps2.MaxRing() < ringSize {
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
	err = c.poll(ctx, resetLimit, func() (bool, error) {
		if id := c.bus.Read32(regs.DevID); id != regs.IDWord {
			return false, qverr.New(qverr.QUACNotFound, "card %s answers DEV_ID %#08x", c.bus.Address(), id)
		}
		status = regs.Status(c.bus.Read32(regs.DevStatus))
		return status&(regs.StatusReady|regs.StatusError) != 0 && status&regs.StatusInitializing == 0, nil
	})
	if errors.Is(err, errPoll) {
		err = qverr.New(qverr.QUACWatchdog, "card %s was not ready %s after a reset (status %#x)", c.bus.Address(), resetLimit, uint32(status))
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
	c.bus.Write32(regs.CMDQTimeoutMS, uint32(commandTimeout.Milliseconds()))
	return c.heartbeat(ctx)
}

// heartbeat waits until the firmware shows that it is alive, for three of its
// periods.
func (c *Card) heartbeat(ctx context.Context) error {
	first := c.bus.Read32(regs.Heartbeat)
	limit := 3 * time.Duration(min(c.bus.Read32(regs.HBPeriodMS), 1000)) * time.Millisecond
	err := c.poll(ctx, limit, func() (bool, error) { return c.bus.Read32(regs.Heartbeat) != first, nil })
	if errors.Is(err, errPoll) {
		return qverr.New(qverr.QUACWatchdog, "card %s: the firmware's heartbeat stands still", c.bus.Address())
	}
	return err
}

// startRings is step 8.
func (c *Card) startRings(context.Context) (err error) {
	if c.ring, err = newRing(c.bus); err != nil {
		return qverr.New(qverr.QUACRingInit, "rings of card %s: %w", c.bus.Address(), err)
	}
	if c.pool, err = newPool(c.bus); err != nil {
		return qverr.New(qverr.QUACDMA, "buffers of card %s: %w", c.bus.Address(), err)
	}
	return nil
}

// startInterrupts is step 9. Vector 1 tells of responses; the others of
// events that Status shows.
func (c *Card) startInterrupts(context.Context) error {
	err := c.bus.Interrupts(regs.MSIXVectors, func(vector int) {
		if vector == regs.VectorResponses {
			c.ring.wake()
			return
		}
		c.event()
	})
	if err != nil {
		return err
	}
	c.bus.Write32(regs.IntCause, ^uint32(0))
	c.bus.Write32(regs.IntEnable, regs.CauseRspAvail.Mask()|regs.CauseError.Mask()|regs.CauseFatal.Mask()|regs.CauseCMDQHalt.Mask())
	c.bus.Write32(regs.IntMask, 0)
	return nil
}

// event looks at what an interrupt of errors says: a halted ring or a fatal
// error ends the card's service, so that callers go elsewhere.
func (c *Card) event() {
	cause := c.bus.Read32(regs.IntCause)
	c.bus.Write32(regs.IntCause, cause)
	status := c.bus.Read32(regs.CMDQStatus)
	fatal := cause&regs.CauseFatal.Mask() != 0
	if cause != regs.GoneWord && !fatal && status&regs.CMDQHalted == 0 {
		return
	}
	reason, _ := regs.SplitCMDQStatus(status)
	c.fail(qverr.New(qverr.QUACWatchdog, "card %s stopped (cause %#x, halt reason %d)", c.bus.Address(), cause, reason))
}

// run is step 10.
func (c *Card) run(context.Context) error {
	c.bus.Write32(regs.DMAControl, regs.DMAEnable|regs.DMASG)
	c.bus.Write32(regs.DevControl, uint32(regs.ControlRun))
	return c.ring.start()
}

// tryOut is step 11: only a card that moves data and gives randomness works.
func (c *Card) tryOut(ctx context.Context) error {
	if _, err := c.do(ctx, &regs.Command{Opcode: regs.OpNOP}, nil); err != nil {
		return err
	}
	sent := []byte("quantavirt: echo through the IOMMU")
	got := make([]byte, len(sent))
	if _, err := c.do(ctx, &regs.Command{Opcode: regs.OpEcho}, &transfer{src0: sent, dst0: got}); err != nil {
		return err
	}
	if string(got) != string(sent) {
		return qverr.New(qverr.QUACDMA, "card %s echoed other bytes than it was sent", c.bus.Address())
	}
	return c.Random(ctx, make([]byte, 32))
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

// Healthy is nil while the card takes work.
func (c *Card) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// fail ends the service with a reason; what is in flight is answered with it.
func (c *Card) fail(err error) {
	c.mu.Lock()
	if c.failed == nil {
		c.failed = err
	}
	c.mu.Unlock()
	if c.ring != nil {
		c.ring.abort(err)
	}
}

// Close stops the card in order: no new work, what is in flight ends, then
// queues, interrupts and memory go.
func (c *Card) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	if c.failed == nil {
		c.failed = qverr.New(qverr.QUACNotFound, "card %s is given back", c.bus.Address())
	}
	c.mu.Unlock()
	c.ring.drain(stepLimit)
	c.stopHardware()
	return c.bus.Close()
}

// stopHardware quiesces a card in any state and frees what it could write to.
func (c *Card) stopHardware() {
	if c.known && c.bus.Read32(regs.DevID) == regs.IDWord {
		c.bus.Write32(regs.CMDQCtrl, 0)
		c.bus.Write32(regs.Reset, regs.ResetSoft) // drops what is left; no later write to our memory
		_ = c.poll(context.Background(), resetLimit, func() (bool, error) {
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
