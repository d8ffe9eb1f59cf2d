package crypto

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/internal/tpm"
	"quantavirt/pqc"
	"quantavirt/pqc/envelope"
	"quantavirt/pqc/keystore"
	"quantavirt/quac100"
)

// provider is what the service needs of pqc.Service.
type provider interface {
	pqc.Provider
	cardActions
	keystore.Card
	keystore.SealingCard
	SetCards(ctx context.Context, addresses []string)
	Status(ctx context.Context) pqc.Status
	FeedEntropy(ctx context.Context) error
	Close() error
}

// Deps is what the service stands on.
type Deps struct {
	Log      *slog.Logger
	DB       *store.DB
	Tasks    *task.Manager
	Keystore string // its directory
	// TPM calls what it is given with the open TPM; nil where there can be none.
	TPM    func(use func(*tpm.Device) error) error
	Memory secret.Protection // what holds for the daemon's memory
}

// Service is the cryptography of the node.
type Service struct {
	Deps
	log  *slog.Logger
	open func(ctx context.Context, opts pqc.Options) (provider, error)

	keystoreMu sync.Mutex
	keystore   *keystore.Store // nil before it is asked for
	envelopes  *envelope.Recipient

	started chan struct{} // closed when it is known what serves

	counting sync.Mutex // one recount at a time, so that none brings back what was before

	mu    sync.Mutex
	cards []initapi.Card    // as PID 1 found them
	lent  map[string]string // VM by address of a card
	pqc   provider
	err   error // why pqc is nil

	last   pqc.Status // as of lastAt: reading the card's sensors takes its time
	lastAt time.Time
}

// statusLife is how old a status may be that is shown.
const statusLife = 500 * time.Millisecond

// status needs p to be the current provider.
func (s *Service) status(ctx context.Context, p provider) pqc.Status {
	s.mu.Lock()
	last, at := s.last, s.lastAt
	s.mu.Unlock()
	if time.Since(at) < statusLife {
		return last
	}
	st := p.Status(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.lastAt = st, time.Now()
	return st
}

// New makes the service; Start opens the cards.
func New(d Deps) *Service {
	return &Service{
		Deps:    d,
		log:     d.Log,
		started: make(chan struct{}),
		lent:    make(map[string]string),
		err:     qverr.New(qverr.Again, "the cards are being looked at"),
		open: func(ctx context.Context, opts pqc.Options) (provider, error) {
			s, err := pqc.Open(ctx, opts)
			if s == nil {
				return nil, err
			}
			return s, err
		},
	}
}

// Start brings up the cards that PID 1 bound to vfio-pci. It returns when it is
// known what serves.
func (s *Service) Start(ctx context.Context, cards []initapi.Card) {
	s.mu.Lock()
	own := s.own(cards)
	s.mu.Unlock()
	p, err := s.open(ctx, pqc.Options{Cards: own, Log: s.log})
	if err != nil {
		s.log.Error("post-quantum cryptography", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cards, s.pqc, s.err = cards, p, err
	close(s.started)
}

// SetCards follows the cards of the machine, of which PID 1 tells: what is new is brought up
// and serves, what is gone is given back.
func (s *Service) SetCards(ctx context.Context, cards []initapi.Card) {
	s.mu.Lock()
	s.cards = cards
	s.mu.Unlock()
	s.recount(ctx)
}

// bound are the addresses of the cards that can be used.
func bound(cards []initapi.Card) (addresses []string) {
	for _, c := range cards {
		if c.Bound {
			addresses = append(addresses, c.Address)
		}
	}
	return addresses
}

// Feed gives the kernel randomness of the card until ctx ends.
func (s *Service) Feed(ctx context.Context) error {
	p, _, err := s.current()
	if err != nil {
		return err
	}
	return p.FeedEntropy(ctx)
}

// Close wipes the keys and gives the cards back.
func (s *Service) Close() error {
	err := s.closeKeystore()
	p, _, none := s.current()
	if none != nil {
		return err
	}
	return errors.Join(err, p.Close())
}

// startTime is how long a request waits until it is known what serves.
const startTime = 20 * time.Second

// serving is the provider, once it is known.
func (s *Service) serving(ctx context.Context) (provider, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case <-s.started:
	case <-ctx.Done():
	}
	p, _, err := s.current()
	return p, err
}

func (s *Service) current() (provider, []initapi.Card, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pqc == nil {
		return nil, s.cards, s.err
	}
	return s.pqc, s.cards, nil
}

// QRNG shows where randomness comes from, once it is known what serves.
func (s *Service) QRNG(ctx context.Context) (spec.QRNG, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return spec.QRNG{}, err
	}
	_, cards, _ := s.current()
	st := s.status(ctx, p)
	q := spec.QRNG{Provider: spec.QRNGProviderSoftware}
	if st.Card != nil {
		q.Healthy = st.Card.QRNG.Healthy
		q.PoolBytes = int(st.Card.QRNG.PoolBits / 8)
		q.DeliveredBytes = int64(st.Card.QRNG.Bytes)
	}
	if st.Card != nil && st.CardError == nil && st.Card.QRNG.Ready {
		q.Provider, q.Available = spec.QRNGProviderQuac100, true
	}
	if !q.Available {
		q.Problem = problemOf(reason(st, cards))
	}
	return q, nil
}

// reason is why the card does not serve: PID 1 knows best when it could not
// even bind it.
func reason(st pqc.Status, cards []initapi.Card) error {
	for _, c := range cards {
		if c.Problem != nil {
			return qverr.New(qverr.Code(c.Problem.Code), "%s: %s", c.Address, c.Problem.Message)
		}
	}
	if st.CardError != nil {
		return st.CardError
	}
	return qverr.New(qverr.QUACQRNGHealth, "the card's QRNG is not ready")
}

// Cards shows the cards; QUAC100_ERR_NOT_FOUND when the node has none.
func (s *Service) Cards(ctx context.Context) (spec.QUAC100, error) {
	out := spec.QUAC100{Provider: spec.QUAC100Provider(s.Provider(ctx)), Cards: s.Overview(ctx)}
	if len(out.Cards) == 0 {
		if _, _, err := s.current(); err != nil {
			return spec.QUAC100{}, err
		}
		return spec.QUAC100{}, qverr.New(qverr.QUACNotFound, "PID 1 found no QUAC 100 (PCI 1db7:0100); cryptography runs in software")
	}
	return out, nil
}

// Provider names who serves now.
func (s *Service) Provider(ctx context.Context) string {
	p, _, err := s.current()
	if err != nil {
		return string(spec.QUAC100ProviderSoftware)
	}
	return s.status(ctx, p).Provider
}

// Overview lists the cards with what they say of themselves.
func (s *Service) Overview(ctx context.Context) []spec.Card {
	p, cards, err := s.current()
	var st pqc.Status
	if err == nil {
		st = s.status(ctx, p)
	}
	out := make([]spec.Card, 0, len(cards))
	for _, c := range cards {
		card := spec.Card{Address: c.Address, IOMMUGroup: c.Group, Bound: c.Bound, SelfTest: spec.CardSelfTestUnknown, VM: s.lentTo(c.Address)}
		switch {
		case card.VM != "": // the node knows nothing of it
		case c.Problem != nil:
			card.Problem = *c.Problem
		case st.Card != nil && st.Card.Address == c.Address:
			fill(&card, st.Card)
			card.Problem = problemOf(st.CardError)
		case err == nil && st.Card == nil:
			card.Problem = problemOf(st.CardError)
		}
		card.Healthy = card.Problem.Code == 0 && card.SelfTest == spec.CardSelfTestPassed
		out = append(out, card)
	}
	return out
}

func fill(card *spec.Card, st *quac100.Status) {
	celsius := float64(st.TempCore) / 1000
	card.Serial, card.Hardware, card.Firmware = st.Serial, st.Model, st.Firmware
	card.TemperatureC = &celsius
	card.Health = st.Health
	switch st.SelfTest {
	case "passed":
		card.SelfTest = spec.CardSelfTestPassed
	case "failed":
		card.SelfTest = spec.CardSelfTestFailed
	}
}

// problemOf is err as the API shows it; the zero Problem for nil.
func problemOf(err error) initapi.Problem {
	if p := initapi.NewProblem(err); p != nil {
		return *p
	}
	return initapi.Problem{}
}
