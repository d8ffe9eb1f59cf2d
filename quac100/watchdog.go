package quac100

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// ladder is what the watchdog knows of the card. Each recovery that is needed
// before the card has served a while goes one rung up: soft reset, function
// reset, give up.
type ladder struct {
	rung     int
	servedAt uint64 // responses when the last recovery ended
	final    bool   // only an operator's Reset helps

	heart    uint32 // the heartbeat as last read
	heartAt  time.Time
	progress uint64 // responses as last seen
	movedAt  time.Time
	waits    bool // a response was visible at the last look
	head     uint64
	irqs     uint64 // interrupts as last seen
	lostRow  int

	idle   int       // rounds without work
	qrngAt time.Time // when a failed QRNG was last restarted
}

const (
	forgetAfter = 256  // responses after which a recovery is forgotten
	idleRounds  = 5    // one round in so many is enough for a card with nothing to do
	beats       = 5    // periods that the heartbeat may stand still
	auxLowMV    = 3000 // of 3300
	lostLimit   = 3    // lost interrupts in a row before the driver looks by itself
)

// trouble tells the supervisor that the card needs a reset.
func (c *Card) trouble(err error) {
	select {
	case c.troubles <- err:
	default: // it has a reason already
	}
}

// supervise looks after the card until Close: it is the one that resets it.
func (c *Card) supervise() {
	tick := time.NewTicker(c.opts.tick)
	defer tick.Stop()
	removed := c.bus.Removed()
	for {
		select {
		case <-c.stopping:
			return
		case <-removed:
			c.locked(c.removed)
			removed = nil
		case err := <-c.troubles:
			c.locked(func() { c.recover(err) })
		case <-c.events:
			c.locked(c.event)
		case <-tick.C:
			c.locked(c.check)
		}
	}
}

// locked runs f unless the card is closed.
func (c *Card) locked(f func()) {
	c.reset.Lock()
	defer c.reset.Unlock()
	if !c.done {
		f()
	}
}

// check is the watchdog's round.
func (c *Card) check() {
	if c.failure.Load() != nil {
		c.revive()
		return
	}
	l := &c.ladder
	if c.ring.inFlight.Load() == 0 && c.ring.total.Load() == l.progress {
		if l.idle++; l.idle%idleRounds != 0 {
			return
		}
	}
	heart, now := c.bus.Read32(regs.Heartbeat), time.Now()
	if heart == regs.GoneWord && c.bus.Read32(regs.DevID) == regs.GoneWord {
		c.gone()
		return
	}
	if heart != l.heart {
		l.heart, l.heartAt = heart, now
	}
	if now.Sub(l.heartAt) > beats*max(c.period, c.opts.tick) {
		c.recover(qverr.New(qverr.QUACWatchdog, "card %s: the firmware's heartbeat stands still at %d", c.bus.Address(), heart))
		return
	}
	if status := regs.Status(c.bus.Read32(regs.DevStatus)); status&regs.StatusCMDQRun == 0 {
		c.recover(c.stopped(status))
		return
	}
	total := c.ring.total.Load()
	if total != l.progress || c.ring.inFlight.Load() == 0 {
		l.progress, l.movedAt = total, now
	}
	if now.Sub(l.movedAt) > 2*c.opts.timeout {
		c.recover(qverr.New(qverr.QUACWatchdog, "card %s has answered nothing for %s", c.bus.Address(), now.Sub(l.movedAt).Round(time.Millisecond)))
		return
	}
	c.findLost(total)
	c.restartQRNG(now)
	c.event() // an interrupt of an event may be lost as well
}

// findLost looks for responses that lie in the ring since the last round: their
// interrupt did not come. When that goes on, the driver no longer relies on
// interrupts.
func (c *Card) findLost(total uint64) {
	l := &c.ladder
	visible, irqs := c.ring.visible(), c.stats.interrupts.Load()
	came := irqs != l.irqs
	l.irqs = irqs
	if visible && l.waits && l.head == total && !came {
		c.stats.lost.Add(1)
		if l.lostRow++; l.lostRow == lostLimit {
			c.ring.polls.Store(true)
			err := qverr.New(qverr.QUACInterrupt, "card %s loses interrupts; the driver looks for responses by itself", c.bus.Address())
			c.opts.log.Error("interrupts", "err", err)
		}
		c.ring.wake()
		l.waits = false
		return
	}
	if came {
		l.lostRow = 0
	}
	l.waits, l.head = visible, total
}

// restartQRNG starts a QRNG that has failed its tests anew, now and then: that
// is the only way out of this state but a reset.
func (c *Card) restartQRNG(now time.Time) {
	l := &c.ladder
	if now.Sub(l.qrngAt) < time.Second || c.bus.Read32(regs.QRNGHealth)&regs.QRNGHealthLevel != regs.QRNGHealthFailed {
		return
	}
	l.qrngAt = now
	c.opts.log.Warn("QRNG restarted", "card", c.bus.Address())
	c.bus.Write32(regs.QRNGControl, c.bus.Read32(regs.QRNGControl)|regs.QRNGRestart)
}

// event acts on what the card says of itself.
func (c *Card) event() {
	if c.failure.Load() != nil {
		return
	}
	cause := c.bus.Read32(regs.IntCause) &^ regs.CauseRspAvail.Mask() & wanted
	if cause == 0 {
		return
	}
	status := regs.Status(c.bus.Read32(regs.DevStatus))
	if uint32(status) == regs.GoneWord {
		c.gone()
		return
	}
	c.bus.Write32(regs.IntCause, cause)
	for x := range regs.Cause(32) {
		if cause&x.Mask() != 0 {
			c.stats.events[x].Add(1)
		}
	}
	errs := c.bus.Read32(regs.ErrStatus)
	c.bus.Write32(regs.ErrStatus, errs)
	c.bus.Write32(regs.DMAError, c.bus.Read32(regs.DMAError))
	c.opts.log.Warn("card event", "card", c.bus.Address(), "causes", cause, "status", uint32(status), "errors", errs)
	c.judge(status)
	switch err := c.halted(status, errs, cause); {
	case err != nil:
		c.recover(err)
	}
}

// judge keeps what makes the card a poor choice, although it works.
func (c *Card) judge(status regs.Status) {
	var err error
	switch {
	case status&regs.StatusTempCrit != 0:
		err = qverr.New(qverr.QUACOvertemp, "card %s is too hot: %d m°C", c.bus.Address(), int32(c.bus.Read32(regs.TempCore)))
	case c.bus.Read32(regs.VAuxMV) < auxLowMV:
		err = qverr.New(qverr.QUACPower, "card %s has %d mV of auxiliary power, needs %d", c.bus.Address(), c.bus.Read32(regs.VAuxMV), auxLowMV)
	}
	if err == nil {
		c.degraded.Store(nil)
		return
	}
	c.degraded.Store(&fault{err})
}

// halted is why the card stopped working, nil if it works.
func (c *Card) halted(status regs.Status, errs, cause uint32) error {
	addr := c.bus.Address()
	switch {
	case status&regs.StatusZeroized != 0:
		return qverr.New(qverr.QUACSelfTest, "card %s was tampered with: its keys are destroyed", addr)
	case regs.ErrThermalShutdown.Mask()&errs != 0 || status&regs.StatusTempCrit != 0 && status&regs.StatusHalted != 0:
		return qverr.New(qverr.QUACOvertemp, "card %s has shut itself down because of heat", addr)
	case status&regs.StatusError != 0 && errs&regs.ErrFirmware.Mask() != 0:
		return qverr.New(qverr.QUACWatchdog, "card %s: the firmware has failed", addr)
	case status&regs.StatusError != 0:
		failed := regs.SelfTest(c.bus.Read32(regs.SelfTestResult))
		return qverr.New(qverr.QUACSelfTest, "card %s is in its error state; failed self-tests: %v", addr, failed.Names())
	case status&regs.StatusHalted != 0:
		reason, _ := regs.SplitCMDQStatus(c.bus.Read32(regs.CMDQStatus))
		return qverr.New(qverr.QUACDMA, "card %s: the rings halted, reason %d", addr, reason)
	case cause&regs.CauseFatal.Mask() != 0 && errs&regs.ErrFatal.Mask() != 0:
		return qverr.New(qverr.QUACWatchdog, "card %s reports a fatal error (%#x)", addr, errs)
	}
	return nil
}

// stopped is why a card takes no commands any more.
func (c *Card) stopped(status regs.Status) error {
	if uint32(status) == regs.GoneWord {
		return qverr.New(qverr.QUACNotFound, "card %s no longer answers", c.bus.Address())
	}
	if err := c.halted(status, c.bus.Read32(regs.ErrStatus), 0); err != nil {
		return err
	}
	return qverr.New(qverr.QUACWatchdog, "card %s was reset by somebody else or by itself (status %#x, cause %#x)",
		c.bus.Address(), uint32(status), c.bus.Read32(regs.ResetCause))
}

// gone is a card that was pulled out: no register is touched any more.
func (c *Card) gone() {
	err := qverr.New(qverr.QUACNotFound, "card %s no longer answers: it was removed or lost its power", c.bus.Address())
	c.opts.log.Error("card gone", "err", err)
	c.fail(err)
}

// removed is the end of the card on this bus.
func (c *Card) removed() {
	c.ladder.final = true
	err := qverr.New(qverr.QUACNotFound, "card %s is being removed from the machine", c.bus.Address())
	c.opts.log.Warn("card removed", "err", err)
	c.fail(err)
	c.losing.Do(func() { close(c.lost) })
}

// recover brings the card back after err: what is in flight fails with it, then
// the next rung of the ladder is taken. A card that can not come back by itself
// is left alone.
func (c *Card) recover(err error) {
	c.opts.log.Error("card fails", "err", err)
	c.recovering.Store(true)
	defer c.recovering.Store(false)
	c.fail(err)
	l := &c.ladder
	if c.bus.Read32(regs.DevID) == regs.GoneWord {
		c.gone()
		return
	}
	if regs.Status(c.bus.Read32(regs.DevStatus))&regs.StatusZeroized != 0 {
		l.final = true // a reset would hide it
		return
	}
	if c.hot() {
		return // revive waits until it has cooled down
	}
	if c.ring.total.Load()-l.servedAt > forgetAfter {
		l.rung = 0
	}
	for ; l.rung < 2; l.rung++ {
		select {
		case <-c.stopping:
			return
		default:
		}
		if e := c.climb(l.rung); e != nil {
			c.opts.log.Error("reset failed", "rung", l.rung, "err", e)
			err = errors.Join(err, e)
			continue
		}
		l.rung++
		c.serve()
		return
	}
	l.final = true
	_ = c.command(0, regs.CommandBusMaster)
	c.failure.Store(&fault{qverr.New(qverr.CodeOf(err), "card %s is given up: %w", c.bus.Address(), err)})
}

// hot reports whether heat keeps the card from coming back.
func (c *Card) hot() bool {
	return c.bus.Read32(regs.ThermState) == regs.ThermShutdown &&
		int32(c.bus.Read32(regs.TempCore)) >= int32(c.bus.Read32(regs.TempCrit))-regs.ThermStep
}

// Recovering reports whether the driver is bringing a card back that failed.
func (c *Card) Recovering() bool { return c.recovering.Load() }

// serve takes work again.
func (c *Card) serve() {
	now := time.Now()
	c.ladder.servedAt, c.ladder.heartAt, c.ladder.movedAt, c.ladder.waits = c.ring.total.Load(), now, now, false
	c.ladder.final = false
	c.stats.recoveries.Add(1)
	c.judge(regs.Status(c.bus.Read32(regs.DevStatus)))
	c.failure.Store(nil)
	c.opts.log.Info("card serves again", "card", c.bus.Address())
}

// climb takes one rung: a soft reset, or a function reset and all that comes
// after it.
func (c *Card) climb(rung int) error {
	ctx, cancel := c.untilStop()
	defer cancel()
	if rung == 0 {
		c.stats.soft.Add(1)
		return c.again(ctx, c.softReset)
	}
	c.stats.flr.Add(1)
	return c.again(ctx, c.functionReset)
}

// untilStop is a context that ends with Close.
func (c *Card) untilStop() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-c.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// again resets the card and brings it up with the memory that it has. Its own
// commands pass although the card takes no work.
func (c *Card) again(ctx context.Context, reset func(context.Context) error) error {
	for _, step := range []func(context.Context) error{
		reset, c.testRegisters, c.startInterrupts, c.enable, c.tryOut,
	} {
		if err := step(ctx); err != nil {
			c.ring.abort(err)
			return err
		}
	}
	return nil
}

// functionReset is the second rung: the bus resets the function, which loses
// the command register.
func (c *Card) functionReset(ctx context.Context) error {
	if err := c.bus.Reset(); err != nil {
		return qverr.New(qverr.QUACWatchdog, "function reset of card %s: %w", c.bus.Address(), err)
	}
	for _, step := range []func(context.Context) error{c.identify, c.enableBus, c.awaitReset, c.checkInterface} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	status := regs.Status(c.bus.Read32(regs.DevStatus))
	if status&regs.StatusError != 0 {
		return c.halted(status, c.bus.Read32(regs.ErrStatus), 0)
	}
	return nil
}

// revive looks whether a card that failed is back: one that was pulled out, or
// one that was too hot.
func (c *Card) revive() {
	if c.ladder.final {
		return
	}
	var id [4]byte
	if c.bus.ReadConfig(regs.CfgID, id[:]) != nil || binary.LittleEndian.Uint32(id[:]) != regs.IDWord {
		return
	}
	if qverr.CodeOf(c.failure.Load().err) == qverr.QUACOvertemp && c.hot() {
		return
	}
	if err := c.climb(1); err == nil {
		c.serve()
	}
}

// Reset resets the card for an operator, all of it: volatile keys are gone, a
// new firmware bank starts. It also brings back a card that was given up. What
// is in flight fails with Again.
func (c *Card) Reset(ctx context.Context) error {
	c.reset.Lock()
	defer c.reset.Unlock()
	if c.done {
		return c.failure.Load().err
	}
	c.fail(qverr.New(qverr.Again, "card %s is being reset", c.bus.Address()))
	if err := c.again(ctx, c.fullReset); err != nil {
		c.ladder.final = true
		c.failure.Store(&fault{err})
		return err
	}
	c.ladder.rung = 0
	c.serve()
	return nil
}

func (c *Card) fullReset(ctx context.Context) error {
	if err := c.enableBus(ctx); err != nil {
		return err
	}
	c.bus.Write32(regs.Reset, regs.ResetFull)
	status, err := c.settle(ctx)
	if err == nil && status&regs.StatusError != 0 {
		err = c.halted(status, c.bus.Read32(regs.ErrStatus), 0)
	}
	return err
}
