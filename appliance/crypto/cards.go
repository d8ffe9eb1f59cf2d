package crypto

import (
	"context"
	"io"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/task"
	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// cardActions is what a provider with cards can do with them.
type cardActions interface {
	TestCard(ctx context.Context, address string) error
	ResetCard(ctx context.Context, address string) error
	CardStats(address string) (quac100.Stats, error)
	UpdateCard(ctx context.Context, address string, image []byte, step func(phase string, done, total int)) error
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

// CardStats shows what the driver counted.
func (s *Service) CardStats(ctx context.Context, address string) (quac100.Stats, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return quac100.Stats{}, err
	}
	if _, err := s.card(ctx, address); err != nil {
		return quac100.Stats{}, err
	}
	return p.CardStats(address)
}

// UpdateCard starts a task that gives a card new firmware.
func (s *Service) UpdateCard(ctx context.Context, address string, image io.Reader, requestID string) (spec.Task, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return spec.Task{}, err
	}
	if _, err := s.card(ctx, address); err != nil {
		return spec.Task{}, err
	}
	data, err := io.ReadAll(io.LimitReader(image, regs.FWImageMax+1))
	if err != nil {
		return spec.Task{}, qverr.New(qverr.IO, "read the firmware image: %w", err)
	}
	if len(data) > regs.FWImageMax {
		return spec.Task{}, qverr.New(qverr.Inval, "a firmware image of more than %d bytes", regs.FWImageMax)
	}
	return s.Tasks.Start(task.Spec{Kind: "quac100.firmware", Target: "quac100/" + address, RequestID: requestID},
		func(ctx context.Context, progress *task.Progress) error {
			last := ""
			return p.UpdateCard(ctx, address, data, func(phase string, done, total int) {
				if phase != last {
					progress.Phase(phase)
					last = phase
				}
				progress.Set(int64(done), int64(total), "bytes")
			})
		})
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
