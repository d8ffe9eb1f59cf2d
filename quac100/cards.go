package quac100

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"quantavirt/internal/qverr"
)

// Pool spreads operations over several cards. Keys that a card stores are that
// card's: operations on handles go to the Card itself.
type Pool struct {
	mu    sync.RWMutex
	cards []*Card
	turn  atomic.Uint32
}

// NewPool makes a pool of cards, which it owns.
func NewPool(cards ...*Card) *Pool { return &Pool{cards: cards} }

// Add puts a card into service.
func (p *Pool) Add(c *Card) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cards = append(slices.Clone(p.cards), c)
}

// Remove takes a card out of service and leaves it to the caller; false if it
// was not there.
func (p *Pool) Remove(c *Card) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.cards, c)
	if i < 0 {
		return false
	}
	p.cards = slices.Delete(slices.Clone(p.cards), i, i+1)
	return true
}

// Cards returns the cards, in the order of adding.
func (p *Pool) Cards() []*Card {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.cards // replaced, never changed
}

// Healthy is nil if some card is; else why the last one is not, QUACNotFound
// if there is none.
func (p *Pool) Healthy() error {
	var err error = qverr.New(qverr.QUACNotFound, "no card is in service")
	for _, c := range p.Cards() {
		if err = c.Healthy(); err == nil {
			return nil
		}
	}
	return err
}

// Do runs call with the healthy card that has the least to do. When that card
// turns out to be at fault, call runs again with another one: it must be an
// operation that may be done twice. What is wrong with the call itself is
// returned at once. Without a healthy card the error is that of Healthy.
func (p *Pool) Do(ctx context.Context, call func(ctx context.Context, c *Card) error) error {
	cards := p.Cards()
	var tried uint64 // bits of cards
	err := p.Healthy()
	for {
		i := p.pick(cards, tried)
		if i < 0 {
			return err
		}
		tried |= 1 << i
		if err = call(ctx, cards[i]); err == nil || !IsFault(err) || ctx.Err() != nil {
			return err
		}
	}
}

// pick returns the card with the fewest commands in flight; among equals they
// take turns. -1 if none is left.
func (p *Pool) pick(cards []*Card, tried uint64) int {
	best, least := -1, int32(0)
	n := min(len(cards), 64)
	if n == 0 {
		return -1
	}
	first := int(p.turn.Add(1) % uint32(n))
	for k := range n {
		i := (first + k) % n
		if tried>>i&1 != 0 || cards[i].Healthy() != nil {
			continue
		}
		if load := cards[i].ring.inFlight.Load() + cards[i].ring.waiting.Load(); best < 0 || load < least {
			best, least = i, load
		}
	}
	return best
}

// Close gives all cards back.
func (p *Pool) Close() error {
	p.mu.Lock()
	cards := p.cards
	p.cards = nil
	p.mu.Unlock()
	var err error
	for _, c := range cards {
		err = errors.Join(err, c.Close())
	}
	return err
}

// IsFault tells a card that can not serve now from a call that is wrong in
// itself: only the first is worth trying elsewhere.
func IsFault(err error) bool {
	switch code := qverr.CodeOf(err); code {
	case qverr.PQCQRNG, qverr.Generic, qverr.IO, qverr.NoDev:
		return true
	case qverr.Again:
		return !qverr.From(err).NotTransient
	default:
		return code <= -200 && code > -300
	}
}
