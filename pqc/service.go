package pqc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
)

// Options of a Service.
type Options struct {
	Cards           []string // PCI addresses of cards bound to vfio-pci
	RequireHardware bool     // no software instead of the card
	Log             *slog.Logger
}

// Service picks the provider of each call and implements Provider itself.
type Service struct {
	opts     Options
	software Provider
	log      *slog.Logger

	mu        sync.Mutex
	card      hardware // nil without a card
	cardErr   error    // why there is none
	onCard    bool     // which provider served last, to log each switch once
	fallbacks atomic.Uint64
	calls     [2]atomic.Uint64 // software, card
}

// hardware is what the service needs of a card.
type hardware interface {
	Provider
	Status(ctx context.Context) (quac100.Status, error)
	Close() error
}

// Status is what the API shows.
type Status struct {
	Provider        string          `json:"provider"` // that would serve now: quac100, software or none
	RequireHardware bool            `json:"require_hardware"`
	Algorithms      []string        `json:"algorithms"`
	SoftwareCalls   uint64          `json:"software_calls"`
	CardCalls       uint64          `json:"card_calls"`
	Fallbacks       uint64          `json:"fallbacks"` // calls that the card could not serve
	Card            *quac100.Status `json:"card,omitempty"`
	CardError       error           `json:"-"` // why no card serves, nil if one does
}

// Open tests the software and brings up the first card that works. A card that
// does not is no error unless hardware is required: Status tells. PQCInit and
// PQCSelfTest when nothing can serve.
func Open(ctx context.Context, opts Options) (*Service, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{opts: opts, log: opts.Log.With("subsystem", "pqc")}
	var err error
	if s.software, err = newSoftware(); err != nil {
		return nil, err
	}
	s.cardErr = qverr.New(qverr.QUACNotFound, "no QUAC 100 is bound to vfio-pci")
	for _, address := range opts.Cards {
		card, err := quac100.OpenVFIO(ctx, address)
		if err != nil {
			s.cardErr = err
			s.log.Error("card "+address+" does not come up", "err", err)
			continue
		}
		s.card, s.cardErr, s.onCard = cardProvider{card}, nil, true
		s.log.Info("card " + address + " serves")
		break
	}
	if s.card == nil && opts.RequireHardware {
		return s, qverr.New(qverr.PQCInit, "hardware is required: %w", s.cardErr)
	}
	return s, nil
}

// Close gives the card back.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.card == nil {
		return nil
	}
	err := s.card.Close()
	s.card, s.cardErr = nil, qverr.New(qverr.QUACNotFound, "the card was given back")
	return err
}

// Status reads the card's sensors, so it takes some milliseconds.
func (s *Service) Status(ctx context.Context) Status {
	s.mu.Lock()
	card, cardErr := s.card, s.cardErr
	s.mu.Unlock()
	st := Status{
		Provider:        "software",
		RequireHardware: s.opts.RequireHardware,
		Algorithms:      []string{"ML-KEM-768"},
		SoftwareCalls:   s.calls[0].Load(),
		CardCalls:       s.calls[1].Load(),
		Fallbacks:       s.fallbacks.Load(),
		CardError:       cardErr,
	}
	if s.opts.RequireHardware {
		st.Provider = "none"
	}
	if card == nil {
		return st
	}
	if err := card.Healthy(); err != nil {
		st.CardError = err
	} else {
		st.Provider = card.Name()
	}
	if status, err := card.Status(ctx); err == nil {
		st.Card = &status
	} else {
		st.CardError = errors.Join(st.CardError, err)
	}
	return st
}

// Name is the name of the provider that would serve now.
func (s *Service) Name() string { return s.Status(context.Background()).Provider }

// Healthy is nil if some provider can serve.
func (s *Service) Healthy() error {
	s.mu.Lock()
	card, cardErr := s.card, s.cardErr
	s.mu.Unlock()
	if !s.opts.RequireHardware {
		return s.software.Healthy()
	}
	if card == nil {
		return cardErr
	}
	return card.Healthy()
}

// serve runs call on the card if it can, else in software.
func (s *Service) serve(call func(Provider) error) error {
	s.mu.Lock()
	card, err := s.card, s.cardErr
	s.mu.Unlock()
	if card != nil {
		if err = card.Healthy(); err == nil {
			err = call(card)
		}
		if err == nil || !cardFault(err) {
			s.served(true, nil)
			return err
		}
		s.fallbacks.Add(1)
	}
	if s.opts.RequireHardware {
		return qverr.New(qverr.PQCFallback, "hardware is required and cannot serve: %w", err)
	}
	s.served(false, err)
	return call(s.software)
}

// served counts the call and logs a change of provider.
func (s *Service) served(card bool, why error) {
	if card {
		s.calls[1].Add(1)
	} else {
		s.calls[0].Add(1)
	}
	s.mu.Lock()
	changed := s.onCard != card
	s.onCard = card
	s.mu.Unlock()
	switch {
	case changed && card:
		s.log.Info("the card serves again")
	case changed:
		s.log.Warn("software serves instead of the card", "err", why)
	}
}

// cardFault tells a card that cannot serve from a call that is wrong in
// itself: the second fails in software just as well.
func cardFault(err error) bool {
	code := qverr.CodeOf(err)
	switch code {
	case qverr.PQCQRNG, qverr.Again, qverr.Timeout, qverr.Unsupported, qverr.Generic, qverr.NoDev, qverr.IO, qverr.NoMem:
		return true
	}
	return code <= -200 && code >= -299
}

// Random fills p.
func (s *Service) Random(ctx context.Context, p []byte) error {
	return s.serve(func(p2 Provider) error { return p2.Random(ctx, p) })
}

// MLKEM768 is the mechanism under the policy of the service.
func (s *Service) MLKEM768() KEM { return policyKEM{s} }

type policyKEM struct{ s *Service }

func (k policyKEM) GenerateKey(ctx context.Context) (public, secret []byte, err error) {
	err = k.s.serve(func(p Provider) (err error) {
		public, secret, err = p.MLKEM768().GenerateKey(ctx)
		return err
	})
	return public, secret, err
}

func (k policyKEM) Encapsulate(ctx context.Context, public []byte) (ciphertext, shared []byte, err error) {
	err = k.s.serve(func(p Provider) (err error) {
		ciphertext, shared, err = p.MLKEM768().Encapsulate(ctx, public)
		return err
	})
	return ciphertext, shared, err
}

func (k policyKEM) Decapsulate(ctx context.Context, secret, ciphertext []byte) (shared []byte, err error) {
	err = k.s.serve(func(p Provider) (err error) {
		shared, err = p.MLKEM768().Decapsulate(ctx, secret, ciphertext)
		return err
	})
	return shared, err
}
