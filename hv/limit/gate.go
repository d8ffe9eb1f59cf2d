package limit

import (
	"sync/atomic"
	"time"
)

// Gate holds one queue to a Limiter without blocking: what is over the limit passes,
// and the gate is closed until that is made up for.
type Gate struct {
	limiter *Limiter // nil for no limit
	timer   *time.Timer
	closed  atomic.Bool
}

// NewGate makes an open gate. wake is called whenever a closed one opens; it must not
// block. Several gates may share a limiter.
func NewGate(l *Limiter, wake func()) *Gate {
	g := &Gate{limiter: l}
	g.timer = time.AfterFunc(maxDebt, func() {
		g.closed.Store(false)
		wake()
	})
	g.timer.Stop()
	return g
}

// Open tells whether a request may pass.
func (g *Gate) Open() bool { return !g.closed.Load() }

// Charge counts a request of n bytes that passed.
func (g *Gate) Charge(n uint64) {
	if g.limiter == nil {
		return
	}
	if wait := g.limiter.Take(n); wait > 0 {
		g.closed.Store(true)
		g.timer.Reset(wait)
	}
}

// Reopen opens the gate at once, after a change of the limits.
func (g *Gate) Reopen() {
	if g.closed.Load() {
		g.timer.Reset(0)
	}
}
