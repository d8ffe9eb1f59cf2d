package quac100

import "sync/atomic"

// gate lets callers pass until it is shut, and counts those inside: what they use,
// memory of the bus, must not go before they have left.
type gate struct {
	inside atomic.Int64
	shut   atomic.Bool
	left   chan struct{} // has room for one
}

func newGate() gate { return gate{left: make(chan struct{}, 1)} }

// enter reports whether the caller may pass; leave must follow then.
func (g *gate) enter() bool {
	g.inside.Add(1)
	if g.shut.Load() {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.inside.Add(-1) == 0 && g.shut.Load() {
		select {
		case g.left <- struct{}{}:
		default:
		}
	}
}

// close shuts the gate and waits until nobody is inside.
func (g *gate) close() {
	g.shut.Store(true)
	for g.inside.Load() != 0 {
		<-g.left
	}
}
