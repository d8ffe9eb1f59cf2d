package pqc

import (
	"context"
	"errors"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// board is what an operator does with a card; see quac100.Card.
type board interface {
	Address() string
	SelfTest(ctx context.Context, tests regs.SelfTest) (failed regs.SelfTest, err error)
	Reset(ctx context.Context) error
	Stats() quac100.Stats
	UpdateFirmware(ctx context.Context, image []byte, progress func(done, total int)) error
	CommitFirmware(ctx context.Context) error
	RollbackFirmware(ctx context.Context) error
}

// TestCard runs all self-tests of the card at a PCI address. QUAC100_ERR_SELF_TEST: some
// failed; QUAC100_ERR_NOT_FOUND: there is no such card.
func (s *Service) TestCard(ctx context.Context, address string) error {
	card, err := s.board(address)
	if err != nil {
		return err
	}
	return runSelfTests(ctx, card, address)
}

func runSelfTests(ctx context.Context, card board, address string) error {
	failed, err := card.SelfTest(ctx, regs.TestsAll)
	if err == nil && failed != 0 {
		err = qverr.New(qverr.QUACSelfTest, "card %s failed its self-test: %s", address, strings.Join(failed.Names(), ", "))
	}
	return err
}

// ResetCard resets the card at a PCI address.
func (s *Service) ResetCard(ctx context.Context, address string) error {
	card, err := s.board(address)
	if err != nil {
		return err
	}
	return card.Reset(ctx)
}

// CardStats are the driver's counters of the card at a PCI address.
func (s *Service) CardStats(address string) (quac100.Stats, error) {
	card, err := s.board(address)
	if err != nil {
		return quac100.Stats{}, err
	}
	return card.Stats(), nil
}

// UpdateCard gives the card at a PCI address a firmware image, starts, tests and keeps it. What
// does not start or fails its tests is given up for the old one. step is told what
// happens; programming tells of bytes.
func (s *Service) UpdateCard(ctx context.Context, address string, image []byte, step func(phase string, done, total int)) error {
	card, err := s.board(address)
	if err != nil {
		return err
	}
	step("program", 0, len(image))
	if err := card.UpdateFirmware(ctx, image, func(done, total int) { step("program", done, total) }); err != nil {
		return err
	}
	step("reset", 0, 0)
	err = card.Reset(ctx)
	if err == nil {
		step("self-test", 0, 0)
		err = runSelfTests(ctx, card, address)
	}
	if err == nil {
		step("commit", 0, 0)
		return card.CommitFirmware(ctx)
	}
	step("roll back", 0, 0)
	back := context.WithoutCancel(ctx)
	undone := card.RollbackFirmware(back)
	if undone == nil {
		undone = card.Reset(back)
	}
	return errors.Join(qverr.New(qverr.QUACFWUpdate, "the new firmware of card %s is given up: %w", address, err), undone)
}

// board is the card in use that has the address.
func (s *Service) board(address string) (board, error) {
	cards, err := s.inService()
	if err != nil {
		return nil, err
	}
	if card := cards.at(address); card != nil {
		return card, nil
	}
	return nil, qverr.New(qverr.QUACNotFound, "no card at %.64s is in use", address)
}

// inService are the cards in service, of which there is at least one.
func (s *Service) inService() (*cardProvider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.card == nil {
		return nil, s.cardErr
	}
	cards, ok := s.card.(*cardProvider)
	if !ok {
		return nil, qverr.New(qverr.Unsupported, "the card cannot be managed and keeps no keys")
	}
	return cards, nil
}
