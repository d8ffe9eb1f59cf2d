package pqc

import (
	"context"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// TestCard runs all self-tests of the card at a PCI address. QUAC100_ERR_SELF_TEST: some
// failed; QUAC100_ERR_NOT_FOUND: there is no such card.
func (s *Service) TestCard(ctx context.Context, address string) error {
	card, err := s.cardAt(ctx, address)
	if err != nil {
		return err
	}
	c, ok := card.(interface {
		SelfTest(ctx context.Context, tests regs.SelfTest) (failed regs.SelfTest, err error)
	})
	if !ok {
		return qverr.New(qverr.Unsupported, "card %s has no self-test", address)
	}
	failed, err := c.SelfTest(ctx, regs.TestsAll)
	if err == nil && failed != 0 {
		err = qverr.New(qverr.QUACSelfTest, "card %s failed its self-test: %s", address, strings.Join(failed.Names(), ", "))
	}
	return err
}

// ResetCard resets the card at a PCI address. QV_ERR_UNSUPPORTED: its driver cannot.
func (s *Service) ResetCard(ctx context.Context, address string) error {
	card, err := s.cardAt(ctx, address)
	if err != nil {
		return err
	}
	c, ok := card.(interface {
		Reset(ctx context.Context) error
	})
	if !ok {
		return qverr.New(qverr.Unsupported, "the driver of card %s cannot reset it", address)
	}
	return c.Reset(ctx)
}

// cardAt is the card that serves, if its address is that.
func (s *Service) cardAt(ctx context.Context, address string) (hardware, error) {
	s.mu.Lock()
	card, cardErr := s.card, s.cardErr
	s.mu.Unlock()
	if card == nil {
		return nil, cardErr
	}
	st, err := card.Status(ctx)
	if err != nil {
		return nil, err
	}
	if st.Address != address {
		return nil, qverr.New(qverr.QUACNotFound, "no card at %.64s serves: %s does", address, st.Address)
	}
	return card, nil
}
