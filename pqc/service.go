package pqc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// Options of a Service.
type Options struct {
	Cards           []string // PCI addresses of cards bound to vfio-pci; see SetCards
	RequireHardware bool     // no software instead of the card
	// OpenCard brings up the card at an address; nil: through VFIO.
	OpenCard func(ctx context.Context, address string) (*quac100.Card, error)
	Log      *slog.Logger
}

// Service picks the provider of each call and implements Provider itself.
type Service struct {
	opts     Options
	software *software
	cards    *cardProvider // those in service
	log      *slog.Logger

	plugging sync.Mutex // SetCards, one at a time
	watching sync.WaitGroup

	mu        sync.Mutex
	shut      bool
	card      hardware // cards, while there is one; else nil
	cardErr   error    // why there is none
	onCard    bool     // which provider served last, to log each switch once
	fallbacks atomic.Uint64
	switches  atomic.Uint64
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
	Algorithms      []Algorithm     `json:"algorithms"`
	CardAlgorithms  []Algorithm     `json:"card_algorithms,omitempty"` // those of them that the card has
	SoftwareCalls   uint64          `json:"software_calls"`            // loading a key is one too
	CardCalls       uint64          `json:"card_calls"`
	Fallbacks       uint64          `json:"fallbacks"` // calls that the card should have served and could not
	Switches        uint64          `json:"switches"`  // changes between card and software, in both directions
	Card            *quac100.Status `json:"card,omitempty"`
	CardError       error           `json:"-"` // why no card serves, nil if one does
}

// Open tests the software and brings up the cards, which share the work. One that
// does not work is no error unless hardware is required and there is no other:
// Status tells. PQCInit and PQCSelfTest when nothing can serve.
func Open(ctx context.Context, opts Options) (*Service, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{opts: opts, log: opts.Log.With("subsystem", "pqc")}
	if opts.OpenCard == nil {
		s.opts.OpenCard = func(ctx context.Context, address string) (*quac100.Card, error) {
			return quac100.OpenVFIO(ctx, address, quac100.WithLog(s.log))
		}
	}
	var err error
	if s.software, err = newSoftware(defaultEngines()); err != nil {
		return nil, err
	}
	s.cards = newCardProvider(s.software)
	s.cardErr = qverr.New(qverr.QUACNotFound, "no QUAC 100 is bound to vfio-pci")
	s.SetCards(ctx, opts.Cards)
	s.onCard = s.card != nil
	if s.card == nil && opts.RequireHardware {
		return s, qverr.New(qverr.PQCInit, "hardware is required: %w", s.cardErr)
	}
	return s, nil
}

// Close gives the cards back.
func (s *Service) Close() error {
	s.plugging.Lock()
	defer s.plugging.Unlock()
	s.mu.Lock()
	card := s.card
	s.shut, s.card, s.cardErr = true, nil, qverr.New(qverr.QUACNotFound, "the card was given back")
	s.mu.Unlock()
	var err error
	if card != nil {
		err = card.Close()
	}
	err = errors.Join(err, s.cards.Close())
	s.watching.Wait()
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
		SoftwareCalls:   s.calls[0].Load(),
		CardCalls:       s.calls[1].Load(),
		Fallbacks:       s.fallbacks.Load(),
		Switches:        s.switches.Load(),
		CardError:       cardErr,
	}
	for _, p := range table {
		st.Algorithms = append(st.Algorithms, p.Algorithm)
		if card != nil && card.Supports(p.Algorithm) {
			st.CardAlgorithms = append(st.CardAlgorithms, p.Algorithm)
		}
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

// forCards tells whether a QUAC 100 is made for an algorithm; 0 stands for
// random bytes. The rest is software's, also where hardware is required.
func forCards(a Algorithm) bool {
	_, ok := regs.SizesOf(regs.Alg(a))
	return ok || a == 0
}

// serve runs call on the card if it can, else in software.
func (s *Service) serve(a Algorithm, call func(Provider) error) error {
	if !forCards(a) {
		s.calls[0].Add(1)
		return call(s.software)
	}
	s.mu.Lock()
	card, err := s.card, s.cardErr
	s.mu.Unlock()
	if card != nil && a != 0 && !card.Supports(a) {
		if !s.opts.RequireHardware {
			s.calls[0].Add(1)
			return call(s.software)
		}
		err = qverr.New(qverr.Unsupported, "the card has no %s", a)
	} else if card != nil {
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
	if changed {
		s.switches.Add(1)
	}
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
	if ended(err) {
		return false
	}
	code := qverr.CodeOf(err)
	switch code {
	case qverr.PQCQRNG, qverr.PQCSelfTest, qverr.Again, qverr.Timeout, qverr.Unsupported, qverr.Generic, qverr.NoDev, qverr.IO, qverr.NoMem:
		return true
	}
	return code <= -200 && code >= -299
}

// ended tells a call that its caller gave up.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
