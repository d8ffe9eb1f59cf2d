package pqc

import (
	"context"
	"hash"
	"sync/atomic"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// cardProvider adapts the cards that are in service to Provider. Keys stay in the
// host's memory and go to a card with each command, to the one that has least to do.
type cardProvider struct {
	pool   *quac100.Pool
	soft   *software             // expands seeds
	closed atomic.Pointer[error] // why it serves no more
}

// newCardProvider owns the cards.
func newCardProvider(soft *software, cards ...*quac100.Card) *cardProvider {
	return &cardProvider{pool: quac100.NewPool(cards...), soft: soft}
}

// Status is that of the first card that is healthy, or else of the first.
func (c *cardProvider) Status(ctx context.Context) (quac100.Status, error) {
	cards := c.pool.Cards()
	for _, card := range cards {
		if card.Healthy() == nil {
			return card.Status(ctx)
		}
	}
	if len(cards) == 0 {
		return quac100.Status{}, c.pool.Healthy()
	}
	return cards[0].Status(ctx)
}

// at is the card in service with a PCI address, nil if there is none.
func (c *cardProvider) at(address string) *quac100.Card {
	for _, card := range c.pool.Cards() {
		if card.Address() == address {
			return card
		}
	}
	return nil
}

// do runs one command on a card.
func (c *cardProvider) do(ctx context.Context, code qverr.Code, command func(ctx context.Context, card *quac100.Card) error) error {
	return as(code, c.pool.Do(ctx, command))
}

func (c *cardProvider) Name() string { return "quac100" }

// Close gives the cards back.
func (c *cardProvider) Close() error { return c.pool.Close() }

// Random fills p.
func (c *cardProvider) Random(ctx context.Context, p []byte) error {
	return c.pool.Do(ctx, func(ctx context.Context, card *quac100.Card) error { return card.Random(ctx, p) })
}

// Healthy is nil while a card takes work and no pair of their keys was wrong.
func (c *cardProvider) Healthy() error {
	if err := c.closed.Load(); err != nil {
		return *err
	}
	return c.pool.Healthy()
}

// Supports tells whether every card has an algorithm. Without a card it is what a card
// is made for.
func (c *cardProvider) Supports(a Algorithm) bool {
	s, ok := regs.SizesOf(regs.Alg(a))
	for _, card := range c.pool.Cards() {
		ok = ok && card.Caps()&s.Cap != 0
	}
	return ok
}

func (c *cardProvider) use(f Family, a Algorithm) (Params, error) {
	p, err := f.of(a)
	if err == nil && !c.Supports(a) {
		err = qverr.New(qverr.Unsupported, "the card has no %s", a)
	}
	return p, err
}

// GenerateKey makes a key pair on the card.
func (c *cardProvider) GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error {
	p, err := a.pair()
	if err != nil {
		return err
	}
	if _, err := c.use(p.Family, a); err != nil {
		return err
	}
	if err := p.checkPair(seed, public, secret); err != nil {
		return err
	}
	generate := (*quac100.Card).KEMKeygen
	if p.Family == FamilySignature {
		generate = (*quac100.Card).SignKeygen
	}
	err = c.do(ctx, qverr.PQCKeygen, func(ctx context.Context, card *quac100.Card) error {
		return generate(card, ctx, regs.Alg(a), seed, public, secret)
	})
	if err != nil {
		return err
	}
	if seed != nil {
		return nil
	}
	err = pairwise(ctx, c, p, public, secret)
	if err == nil {
		return nil
	}
	clear(public)
	clear(secret)
	if !cardFault(err) && !ended(err) {
		err = qverr.New(qverr.PQCSelfTest, "the halves of a new %s key of the card do not belong together: %w", a, err)
		c.closed.CompareAndSwap(nil, &err)
	}
	return err
}

// PublicKey is software's: the secret is here.
func (c *cardProvider) PublicKey(ctx context.Context, a Algorithm, secret []byte) ([]byte, error) {
	return c.soft.PublicKey(ctx, a, secret)
}

// expanded is a copy of a secret key in the form that the card takes.
func (c *cardProvider) expanded(ctx context.Context, p Params, secret []byte, code qverr.Code) ([]byte, error) {
	out := make([]byte, p.SecretKey)
	switch len(secret) {
	case p.SecretKey:
		copy(out, secret)
		return out, nil
	case p.Seed:
		return out, c.soft.GenerateKey(ctx, p.Algorithm, secret, make([]byte, p.PublicKey), out)
	}
	return nil, qverr.New(code, "%s secret key of %d bytes, want %d or a seed of %d", p.Name, len(secret), p.SecretKey, p.Seed)
}

// Hash is Unsupported: the card has none.
func (c *cardProvider) Hash(a Algorithm) (hash.Hash, error) {
	_, err := c.use(FamilyHash, a)
	return nil, err
}

// XOF is Unsupported: the card has none.
func (c *cardProvider) XOF(a Algorithm) (XOF, error) {
	_, err := c.use(FamilyXOF, a)
	return nil, err
}

// KDF is Unsupported: the card has none.
func (c *cardProvider) KDF(a Algorithm, _, _, _, _ []byte) error {
	_, err := c.use(FamilyKDF, a)
	return err
}

// as gives what the card says of a wrong key or length the code of the
// operation, as software does; a fault of the card keeps its own.
func as(code qverr.Code, err error) error {
	if err == nil || cardFault(err) || ended(err) {
		return err
	}
	return qverr.New(code, "on the card: %w", err)
}
