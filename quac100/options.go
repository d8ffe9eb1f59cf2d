package quac100

import (
	"log/slog"
	"time"

	"quantavirt/quac100/regs"
)

// Completion says how the driver learns of responses.
type Completion uint8

// Kinds of completion.
const (
	// Adaptive sleeps until an interrupt, and looks at the ring instead for as
	// long as responses come in quick succession.
	Adaptive Completion = iota
	// Interrupts always sleeps.
	Interrupts
	// Polling looks at the ring for as long as anything is in flight.
	Polling
)

// options of a card.
type options struct {
	ring       int
	timeout    time.Duration
	tick       time.Duration
	waiting    int
	completion Completion
	poolLimit  int
	log        *slog.Logger
}

func defaults() options {
	return options{
		ring: 1024, timeout: 30 * time.Second, tick: 200 * time.Millisecond, waiting: 1 << 14,
		poolLimit: 64 << 20, log: slog.New(slog.DiscardHandler),
	}
}

// Option changes how a card is driven.
type Option func(*options)

// WithRing sets the entries of each ring: a power of two from 16 to 4096, of
// which all but one may be in flight. The default is 1024.
func WithRing(entries int) Option {
	return func(o *options) { o.ring = max(regs.RingMin, min(entries, regs.RingMax)) }
}

// WithTimeout sets how long the card may execute one command, 10 ms to 10
// minutes. The default is 30 s, for the small SLH-DSA sets.
func WithTimeout(d time.Duration) Option {
	return func(o *options) {
		o.timeout = max(regs.TimeoutMinMS*time.Millisecond, min(d, regs.TimeoutMaxMS*time.Millisecond))
	}
}

// WithWatchdog sets how often heartbeat and progress are looked at; the
// default is 200 ms, two periods of the heartbeat.
func WithWatchdog(d time.Duration) Option { return func(o *options) { o.tick = d } }

// WithMaxWaiting sets how many callers may wait for a place in the ring before
// further ones get QUACRingFull. The default is 16384.
func WithMaxWaiting(n int) Option { return func(o *options) { o.waiting = n } }

// WithCompletion chooses how responses are noticed.
func WithCompletion(c Completion) Option { return func(o *options) { o.completion = c } }

// WithPool limits the DMA memory in bytes; the default is 64 MiB. It grows on
// demand.
func WithPool(limit int) Option { return func(o *options) { o.poolLimit = limit } }

// WithLog tells of resets, recoveries and the card's events.
func WithLog(l *slog.Logger) Option { return func(o *options) { o.log = l } }
