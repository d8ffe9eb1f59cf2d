package crypto

import (
	"context"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// cardActions is what a provider with cards can do with them.
type cardActions interface {
	TestCard(ctx context.Context, address string) error
	ResetCard(ctx context.Context, address string) error
}

// TestCard runs the self-tests of a card and shows it.
func (s *Service) TestCard(ctx context.Context, address string) (spec.Card, error) {
	return s.act(ctx, address, cardActions.TestCard)
}

// ResetCard resets a card and shows it.
func (s *Service) ResetCard(ctx context.Context, address string) (spec.Card, error) {
	return s.act(ctx, address, cardActions.ResetCard)
}

func (s *Service) act(ctx context.Context, address string, do func(cardActions, context.Context, string) error) (spec.Card, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return spec.Card{}, err
	}
	if _, err := s.card(ctx, address); err != nil {
		return spec.Card{}, err
	}
	if err := do(p, ctx, address); err != nil {
		return spec.Card{}, err
	}
	s.mu.Lock()
	s.lastAt = s.lastAt.Add(-statusLife) // what is shown is what is now
	s.mu.Unlock()
	return s.card(ctx, address)
}

// card finds a card of the node by its address.
func (s *Service) card(ctx context.Context, address string) (spec.Card, error) {
	for _, c := range s.Overview(ctx) {
		if c.Address == address {
			return c, nil
		}
	}
	return spec.Card{}, qverr.New(qverr.QUACNotFound, "the node has no card at %.64s", address)
}
