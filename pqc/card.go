package pqc

import (
	"context"
	"hash"
	"sync/atomic"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// cardProvider adapts a card to Provider.
type cardProvider struct {
	*quac100.Card
	caps   regs.Caps
	soft   *software             // expands seeds
	closed atomic.Pointer[error] // why it serves no more
}

func newCardProvider(ctx context.Context, card *quac100.Card, soft *software) (*cardProvider, error) {
	info, err := card.Info(ctx)
	if err != nil {
		return nil, err
	}
	return &cardProvider{Card: card, caps: info.Caps, soft: soft}, nil
}

func (c *cardProvider) Name() string { return "quac100" }

// Healthy is nil while the card takes work and no pair of its keys was wrong.
func (c *cardProvider) Healthy() error {
	if err := c.closed.Load(); err != nil {
		return *err
	}
	return c.Card.Healthy()
}

// Supports tells whether the card has an algorithm.
func (c *cardProvider) Supports(a Algorithm) bool {
	s, ok := regs.SizesOf(regs.Alg(a))
	return ok && s.Family == regs.FamilyKEM && c.caps&s.Cap != 0
}

func (c *cardProvider) use(f Family, a Algorithm) (Params, error) {
	p, err := f.of(a)
	if err == nil && !c.Supports(a) {
		err = qverr.New(qverr.Unsupported, "the card has no %s", a)
	}
	return p, err
}

// GenerateKey makes a key pair on the card, from fresh randomness only.
func (c *cardProvider) GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error {
	p, err := c.use(FamilyKEM, a)
	if err != nil {
		return err
	}
	if seed != nil && len(seed) != p.Seed {
		return qverr.New(qverr.PQCKeygen, "%s seed of %d bytes, want %d", a, len(seed), p.Seed)
	}
	if len(public) != p.PublicKey || len(secret) != p.SecretKey {
		return qverr.New(qverr.PQCKeygen, "%s: public and secret key of %d and %d bytes, want %d and %d", a, len(public), len(secret), p.PublicKey, p.SecretKey)
	}
	if seed != nil {
		return qverr.New(qverr.Unsupported, "the card takes no seed")
	}
	pk, sk, err := c.Card.KEMGenerateKey(ctx, regs.Alg(a))
	if err != nil {
		return as(qverr.PQCKeygen, err)
	}
	defer clear(sk)
	if err := pairwise(ctx, c, p, pk, sk); err != nil {
		if cardFault(err) {
			return err
		}
		err = qverr.New(qverr.PQCSelfTest, "the halves of a new %s key of the card do not belong together: %w", a, err)
		c.closed.CompareAndSwap(nil, &err)
		return err
	}
	copy(public, pk)
	copy(secret, sk)
	return nil
}

// PublicKey is software's: the secret is here.
func (c *cardProvider) PublicKey(ctx context.Context, a Algorithm, secret []byte) ([]byte, error) {
	return c.soft.PublicKey(ctx, a, secret)
}

type cardEncapsulator struct {
	c      *cardProvider
	p      Params
	public []byte
}

func (c *cardProvider) Encapsulator(_ context.Context, a Algorithm, public []byte) (Encapsulator, error) {
	p, err := c.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.PQCEncaps, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	return &cardEncapsulator{c, p, append([]byte{}, public...)}, nil
}

func (k *cardEncapsulator) Encapsulate(ctx context.Context, ciphertext, shared []byte) error {
	if len(ciphertext) != k.p.Output || len(shared) != k.p.Shared {
		return qverr.New(qverr.PQCEncaps, "%s: room for ciphertext and shared key of %d and %d bytes, want %d and %d",
			k.p.Name, len(ciphertext), len(shared), k.p.Output, k.p.Shared)
	}
	ct, ss, err := k.c.Card.KEMEncapsulate(ctx, regs.Alg(k.p.Algorithm), k.public)
	copy(ciphertext, ct)
	copy(shared, ss)
	clear(ss)
	return as(qverr.PQCEncaps, err)
}

type cardDecapsulator struct {
	c      *cardProvider
	p      Params
	secret []byte // expanded
}

func (c *cardProvider) Decapsulator(ctx context.Context, a Algorithm, secret []byte) (Decapsulator, error) {
	p, err := c.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	expanded := make([]byte, p.SecretKey)
	switch len(secret) {
	case p.SecretKey:
		copy(expanded, secret)
	case p.Seed:
		if err := c.soft.GenerateKey(ctx, a, secret, make([]byte, p.PublicKey), expanded); err != nil {
			return nil, err
		}
	default:
		return nil, qverr.New(qverr.PQCDecaps, "%s secret key of %d bytes, want %d or a seed of %d", a, len(secret), p.SecretKey, p.Seed)
	}
	return &cardDecapsulator{c, p, expanded}, nil
}

func (k *cardDecapsulator) Decapsulate(ctx context.Context, shared, ciphertext []byte) error {
	if k.secret == nil {
		return destroyed(qverr.PQCDecaps)
	}
	if len(ciphertext) != k.p.Output || len(shared) != k.p.Shared {
		return qverr.New(qverr.PQCDecaps, "%s ciphertext of %d bytes and room for %d, want %d and %d",
			k.p.Name, len(ciphertext), len(shared), k.p.Output, k.p.Shared)
	}
	ss, err := k.c.Card.KEMDecapsulate(ctx, regs.Alg(k.p.Algorithm), k.secret, ciphertext)
	copy(shared, ss)
	clear(ss)
	return as(qverr.PQCDecaps, err)
}

func (k *cardDecapsulator) Destroy() {
	clear(k.secret)
	k.secret = nil
}

func (c *cardProvider) Signer(_ context.Context, a Algorithm, _ []byte) (Signer, error) {
	_, err := c.use(FamilySignature, a)
	return nil, err
}

func (c *cardProvider) Verifier(_ context.Context, a Algorithm, _ []byte) (Verifier, error) {
	_, err := c.use(FamilySignature, a)
	return nil, err
}

func (c *cardProvider) AEAD(_ context.Context, a Algorithm, _ []byte) (AEAD, error) {
	_, err := c.use(FamilyAEAD, a)
	return nil, err
}

func (c *cardProvider) Hash(a Algorithm) (hash.Hash, error) {
	_, err := c.use(FamilyHash, a)
	return nil, err
}

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
	if err == nil || cardFault(err) {
		return err
	}
	return qverr.New(code, "on the card: %w", err)
}
