package workload

import (
	"bytes"
	"context"
	"fmt"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// step is a kind of work: some operations whose results can be checked together.
type step struct {
	name  string
	share int // of a million steps
	ops   int // commands of one
	do    func(*caller, context.Context) error
}

// Shares of the steps of an algorithm.
const (
	usual     = 60_000
	seldom    = 2_000
	slowFast  = 300 // SLH-DSA, the sets for fast signing: tens of milliseconds each
	slowSmall = 60  // and those for small signatures: up to seconds
)

// stepsOf lists what a card can do. The first one is a single operation.
func stepsOf(caps regs.Caps, quick bool) []step {
	steps := []step{
		{"NOP", usual, 1, func(c *caller, ctx context.Context) error { return c.card.NOP(ctx, false) }},
		{"fence", seldom, 1, func(c *caller, ctx context.Context) error { return c.card.NOP(ctx, true) }},
		{"echo", usual, 1, (*caller).echo}, {"random", usual, 1, (*caller).random},
		{"random of every quality", seldom, 4, (*caller).qualities}, {"reseed", seldom, 1, (*caller).reseed},
		{"QRNG health", seldom / 10, 1, (*caller).testQRNG}, {"raw samples", seldom / 10, 1, (*caller).raw},
		{"health", seldom, 1, (*caller).health}, {"information", seldom, 1, (*caller).info},
		{"self-test", 10, 1, (*caller).selfTest},
		{"AES-GCM", usual, 2, func(c *caller, ctx context.Context) error { return c.gcm(ctx, 200) }},
		{"AES-GCM of long messages", usual / 4, 2, func(c *caller, ctx context.Context) error { return c.gcm(ctx, 50_000*(c.id%4)+20_000) }},
		{"AES key on the card", usual / 2, 5, (*caller).storedAES}, {"wrapped keys", usual / 2, 10, (*caller).wrapped},
		{"batch", usual / 4, 9, (*caller).batch},
	}
	for _, s := range regs.Algorithms() {
		if caps&s.Cap == 0 {
			continue
		}
		switch s.Family {
		case regs.FamilyKEM:
			steps = append(steps, step{s.Name, usual, 3, func(c *caller, ctx context.Context) error { return c.kem(ctx, s) }},
				step{s.Name + " on the card", usual / 4, 8, func(c *caller, ctx context.Context) error { return c.storedKEM(ctx, s) }})
		case regs.FamilySignature:
			share := signatureShare(s)
			if quick && share == slowSmall {
				continue
			}
			steps = append(steps, step{s.Name, share, 4, func(c *caller, ctx context.Context) error { return c.sign(ctx, s) }})
			if share > slowSmall {
				steps = append(steps, step{s.Name + " on the card", share / 4, 5, func(c *caller, ctx context.Context) error { return c.storedSign(ctx, s) }})
			}
		}
	}
	return steps
}

func signatureShare(s regs.Sizes) int {
	switch s.Alg {
	case regs.MLDSA44, regs.MLDSA65, regs.MLDSA87:
		return usual / 2
	case regs.SLHSHA2128f, regs.SLHSHA2192f, regs.SLHSHA2256f, regs.SLHSHAKE128f, regs.SLHSHAKE192f, regs.SLHSHAKE256f:
		return slowFast
	}
	return slowSmall
}

// caller has a message of its own, which nobody else's answer fits.
type caller struct {
	card *quac100.Card
	id   int
	text []byte
}

func newCaller(card *quac100.Card, id int) *caller {
	return &caller{card: card, id: id, text: bytes.Repeat([]byte{byte(id), 7, byte(id) ^ 0x5A}, 60_000)}
}

// right is ErrWrong unless it is.
func right(is bool, what string) error {
	if is {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrWrong, what)
}

func (c *caller) echo(ctx context.Context) error {
	got := make([]byte, 1+c.id*1000)
	if err := c.card.Echo(ctx, c.text[:len(got)], got); err != nil {
		return err
	}
	return right(bytes.Equal(got, c.text[:len(got)]), "echo")
}

func (c *caller) random(ctx context.Context) error {
	p := make([]byte, 32)
	if err := c.card.Random(ctx, p); err != nil {
		return err
	}
	return right(!bytes.Equal(p, make([]byte, 32)), "zeroes as randomness")
}

func (c *caller) qualities(ctx context.Context) error {
	var p [4][16]byte
	for q := range p {
		if err := c.card.ReadRandom(ctx, regs.Quality(q), p[q][:]); err != nil {
			return err
		}
	}
	return right(p[0] != p[1] && p[1] != p[2] && p[2] != p[3], "randomness twice")
}

func (c *caller) reseed(ctx context.Context) error { return c.card.Reseed(ctx, c.text[:100]) }

func (c *caller) testQRNG(ctx context.Context) error {
	failed, err := c.card.TestQRNG(ctx)
	if err != nil {
		return err
	}
	return right(failed == 0, "health of the QRNG")
}

func (c *caller) raw(ctx context.Context) error {
	p := make([]byte, regs.QRNGRawMax)
	if err := c.card.RawSamples(ctx, c.id%regs.QRNGSources, p); err != nil {
		return err
	}
	return right(!bytes.Equal(p[:64], make([]byte, 64)), "zeroes as samples")
}

func (c *caller) health(ctx context.Context) error {
	h, err := c.card.Health(ctx)
	if err != nil {
		return err
	}
	return right(h.State == regs.HealthOK, "health")
}

func (c *caller) info(ctx context.Context) error {
	i, err := c.card.Info(ctx)
	if err != nil {
		return err
	}
	return right(i.Caps == c.card.Caps(), "capabilities")
}

func (c *caller) selfTest(ctx context.Context) error {
	failed, err := c.card.SelfTest(ctx, regs.TestsStartup)
	if err != nil {
		return err
	}
	return right(failed == 0, "self-test")
}

// batch is eight commands with one doorbell, and one that shows that they are done.
func (c *caller) batch(ctx context.Context) error {
	b := c.card.NewBatch()
	var p [8][32]byte
	for i := range p {
		b.Echo(c.text[i:i+32], p[i][:])
	}
	if err := b.Run(ctx); err != nil {
		return err
	}
	for i := range p {
		if err := right(bytes.Equal(p[i][:], c.text[i:i+32]), "echo of a batch"); err != nil {
			return err
		}
	}
	return c.card.NOP(ctx, false)
}

func (c *caller) gcm(ctx context.Context, n int) error {
	key, nonce, text := quac100.Inline(c.text[:32]), c.text[:12], c.text[:n]
	sealed, opened := make([]byte, n+regs.GCMTagSize), make([]byte, n)
	if err := c.card.EncryptGCM(ctx, key, nonce, c.text[:40], text, sealed); err != nil {
		return err
	}
	if err := c.card.DecryptGCM(ctx, key, nonce, c.text[:40], sealed, opened); err != nil {
		return err
	}
	return right(bytes.Equal(opened, text), "plaintext")
}

func (c *caller) kem(ctx context.Context, s regs.Sizes) error {
	ek, dk, ct := make([]byte, s.Public), make([]byte, s.Secret), make([]byte, s.Output)
	var k, k2 [regs.SharedSize]byte
	if err := c.card.KEMKeygen(ctx, s.Alg, nil, ek, dk); err != nil {
		return err
	}
	if err := c.card.Encapsulate(ctx, s.Alg, quac100.Inline(ek), nil, ct, k[:]); err != nil {
		return err
	}
	if err := c.card.Decapsulate(ctx, s.Alg, quac100.Inline(dk), ct, k2[:]); err != nil {
		return err
	}
	return right(k == k2, "shared keys")
}

// sign also has a signature of another message refused.
func (c *caller) sign(ctx context.Context, s regs.Sizes) error {
	pk, sk, sig := make([]byte, s.Public), make([]byte, s.Secret), make([]byte, s.Output)
	o := quac100.SignOptions{Context: c.text[:c.id]}
	if err := c.card.SignKeygen(ctx, s.Alg, nil, pk, sk); err != nil {
		return err
	}
	if err := c.card.Sign(ctx, s.Alg, quac100.Inline(sk), o, c.text[:100], sig); err != nil {
		return err
	}
	if err := c.card.Verify(ctx, s.Alg, quac100.Inline(pk), o, c.text[:100], sig); err != nil {
		return err
	}
	err := c.card.Verify(ctx, s.Alg, quac100.Inline(pk), o, c.text[:101], sig)
	if qverr.CodeOf(err) == qverr.PQCVerify {
		return nil
	}
	if err == nil {
		return right(false, "signature of another message")
	}
	return err
}
