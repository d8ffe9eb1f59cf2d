package crypto

import (
	"context"
	"time"

	"quantavirt/internal/initapi"
)

// Addresses waits until it is known what serves, and lists the cards that can be used,
// by the node or by a VM.
func (s *Service) Addresses(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case <-s.started:
	case <-ctx.Done():
		_, _, err := s.current()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bound(s.cards), nil
}

// Lend gives a card up to a VM: calls go on with other cards or in software. When it
// returns, nobody has the card open here. It may come before Start, which leaves the
// card alone then.
func (s *Service) Lend(ctx context.Context, address, vm string) {
	s.mu.Lock()
	s.lent[address] = vm
	s.mu.Unlock()
	s.log.Info("card "+address+" is lent", "vm", vm)
	s.recount(ctx)
}

// Return brings a card that was lent back into service.
func (s *Service) Return(ctx context.Context, address string) {
	s.mu.Lock()
	delete(s.lent, address)
	s.mu.Unlock()
	s.recount(ctx)
}

// recount makes the provider use what the node has now.
func (s *Service) recount(ctx context.Context) {
	s.counting.Lock()
	defer s.counting.Unlock()
	s.mu.Lock()
	p, cards := s.pqc, s.own(s.cards)
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.SetCards(ctx, cards)
	s.cardsChanged()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAt = time.Time{} // what is shown is what is now
}

// own are the addresses of the cards that the node uses itself; it needs the lock.
func (s *Service) own(cards []initapi.Card) (addresses []string) {
	for _, address := range bound(cards) {
		if s.lent[address] == "" {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// lentTo is the VM that has a card, "" for none.
func (s *Service) lentTo(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lent[address]
}
