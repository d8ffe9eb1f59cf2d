package pqc

import (
	"context"
	"slices"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
)

// SetCards says which cards the machine has now: PCI addresses of those that are bound to
// vfio-pci. One that is new, or back, is brought up and tested, and serves from then on; one
// that is not among them is given back. A card that does not come up is left out, and
// logged. Calls go on meanwhile.
func (s *Service) SetCards(ctx context.Context, addresses []string) {
	s.plugging.Lock()
	defer s.plugging.Unlock()
	for _, card := range s.cards.pool.Cards() {
		if !slices.Contains(addresses, card.Address()) {
			s.giveBack(card)
		}
	}
	for _, address := range addresses {
		if card := s.cards.at(address); card != nil {
			select {
			case <-card.Removed(): // and there is one again
				s.giveBack(card)
			default:
				continue
			}
		}
		s.plug(ctx, address)
	}
}

// plug puts a card into service. The lock of SetCards is held.
func (s *Service) plug(ctx context.Context, address string) {
	s.mu.Lock()
	shut := s.shut
	s.mu.Unlock()
	if shut {
		return
	}
	card, err := s.opts.OpenCard(ctx, address)
	if err != nil {
		s.log.Error("card "+address+" does not come up", "err", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.card == nil {
			s.cardErr = err
		}
		return
	}
	s.cards.pool.Add(card)
	s.mu.Lock()
	s.card, s.cardErr = s.cards, nil
	s.mu.Unlock()
	s.log.Info("card " + address + " serves")
	s.watching.Go(func() {
		<-card.Removed() // closed by Close too
		s.giveBack(card)
	})
}

// giveBack takes a card out of service, once, and closes it: calls under way that it does
// not answer any more are done by others.
func (s *Service) giveBack(card *quac100.Card) {
	if !s.cards.pool.Remove(card) {
		return
	}
	s.mu.Lock()
	if s.card == hardware(s.cards) && len(s.cards.pool.Cards()) == 0 {
		s.card, s.cardErr = nil, qverr.New(qverr.QUACNotFound, "card %s was removed", card.Address())
	}
	s.mu.Unlock()
	if err := card.Close(); err != nil {
		s.log.Warn("give back card "+card.Address(), "err", err) // there may be nothing any more that it could be given to
	}
	s.log.Info("card " + card.Address() + " no longer serves")
}
