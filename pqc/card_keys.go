package pqc

import (
	"bytes"
	"context"
	"slices"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// cardKey is a key that goes to the card with each command; nil after Destroy.
type cardKey struct {
	c     *cardProvider
	p     Params
	bytes []byte
}

func (k *cardKey) alg() regs.Alg { return regs.Alg(k.p.Algorithm) }

func (k *cardKey) inline() quac100.Key { return quac100.Inline(k.bytes) }

// Destroy wipes the key.
func (k *cardKey) Destroy() {
	clear(k.bytes)
	k.bytes = nil
}

type cardEncapsulator struct{ cardKey }

// Encapsulator keeps a public key.
func (c *cardProvider) Encapsulator(_ context.Context, a Algorithm, public []byte) (Encapsulator, error) {
	p, err := c.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.PQCEncaps, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	return &cardEncapsulator{cardKey{c, p, bytes.Clone(public)}}, nil
}

func (k *cardEncapsulator) Encapsulate(ctx context.Context, ciphertext, shared []byte) error {
	return k.encapsulateWith(ctx, nil, ciphertext, shared)
}

// encapsulateWith takes m of FIPS 203, algorithm 20, for known-answer tests.
func (k *cardEncapsulator) encapsulateWith(ctx context.Context, m, ciphertext, shared []byte) error {
	if err := k.p.checkEncapsulate(ciphertext, shared); err != nil {
		return err
	}
	return k.c.do(ctx, qverr.PQCEncaps, func(ctx context.Context, card *quac100.Card) error {
		return card.Encapsulate(ctx, k.alg(), k.inline(), m, ciphertext, shared)
	})
}

type cardDecapsulator struct{ cardKey }

// Decapsulator keeps a secret key.
func (c *cardProvider) Decapsulator(ctx context.Context, a Algorithm, secret []byte) (Decapsulator, error) {
	p, err := c.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	expanded, err := c.expanded(ctx, p, secret, qverr.PQCDecaps)
	if err != nil {
		return nil, err
	}
	return &cardDecapsulator{cardKey{c, p, expanded}}, nil
}

func (k *cardDecapsulator) Decapsulate(ctx context.Context, shared, ciphertext []byte) error {
	if k.bytes == nil {
		return destroyed(qverr.PQCDecaps)
	}
	if err := k.p.checkDecapsulate(shared, ciphertext); err != nil {
		return err
	}
	return k.c.do(ctx, qverr.PQCDecaps, func(ctx context.Context, card *quac100.Card) error {
		return card.Decapsulate(ctx, k.alg(), k.inline(), ciphertext, shared)
	})
}

// signOptions are o for the card, after the checks that software makes too.
func (k *cardKey) signOptions(message []byte, o *SignOptions) (quac100.SignOptions, error) {
	m, err := encode(k.p, message, o)
	if err != nil {
		return quac100.SignOptions{}, err
	}
	if len(message)+len(m.context) > cardMessage {
		return quac100.SignOptions{}, qverr.New(qverr.Unsupported, "the card signs at most %d bytes", cardMessage)
	}
	return quac100.SignOptions{Context: m.context, Hash: cardHash(m.hash), Deterministic: o != nil && o.Deterministic}, nil
}

// cardMessage is the most that the card takes at a time, in bytes (MAX_XFER).
const cardMessage = 16 << 20

// cardHash is the card's number of a hash, 0 for none. The last digits are the same.
func cardHash(a Algorithm) regs.HashID { return regs.HashID(a & 0xF) }

type cardSigner struct{ cardKey }

// Signer keeps a secret key.
func (c *cardProvider) Signer(ctx context.Context, a Algorithm, secret []byte) (Signer, error) {
	p, err := c.use(FamilySignature, a)
	if err != nil {
		return nil, err
	}
	expanded, err := c.expanded(ctx, p, secret, qverr.PQCSign)
	if err != nil {
		return nil, err
	}
	if err := c.soft.engines.sign[a].check(expanded); err != nil {
		clear(expanded)
		return nil, qverr.New(qverr.PQCSign, "%s secret key: %w", a, err)
	}
	return &cardSigner{cardKey{c, p, expanded}}, nil
}

func (k *cardSigner) Sign(ctx context.Context, signature, message []byte, o *SignOptions) error {
	if k.bytes == nil {
		return destroyed(qverr.PQCSign)
	}
	options, err := k.signOptions(message, o)
	if err != nil {
		return err
	}
	if len(signature) != k.p.Output {
		return qverr.New(qverr.PQCSign, "%s: room for a signature of %d bytes, want %d", k.p.Name, len(signature), k.p.Output)
	}
	return k.c.do(ctx, qverr.PQCSign, func(ctx context.Context, card *quac100.Card) error {
		return card.Sign(ctx, k.alg(), k.inline(), options, message, signature)
	})
}

type cardVerifier struct{ cardKey }

// Verifier keeps a public key.
func (c *cardProvider) Verifier(_ context.Context, a Algorithm, public []byte) (Verifier, error) {
	p, err := c.use(FamilySignature, a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.PQCVerify, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	return &cardVerifier{cardKey{c, p, bytes.Clone(public)}}, nil
}

func (k *cardVerifier) Verify(ctx context.Context, message, signature []byte, o *SignOptions) error {
	options, err := k.signOptions(message, o)
	if err != nil {
		return err
	}
	return k.c.do(ctx, qverr.PQCVerify, func(ctx context.Context, card *quac100.Card) error {
		return card.Verify(ctx, k.alg(), k.inline(), options, message, signature)
	})
}

type cardAEAD struct{ cardKey }

// AEAD keeps a key.
func (c *cardProvider) AEAD(_ context.Context, a Algorithm, key []byte) (AEAD, error) {
	p, err := c.use(FamilyAEAD, a)
	if err != nil {
		return nil, err
	}
	if len(key) != p.SecretKey {
		return nil, qverr.New(qverr.PQCEncrypt, "%s key of %d bytes, want %d", a, len(key), p.SecretKey)
	}
	return &cardAEAD{cardKey{c, p, bytes.Clone(key)}}, nil
}

// check finds what no card could do, and what this one cannot.
func (k *cardAEAD) check(code qverr.Code, nonce, text, additional []byte) error {
	if k.bytes == nil {
		return destroyed(code)
	}
	if len(nonce) != k.p.Nonce {
		return qverr.New(code, "%s nonce of %d bytes, want %d", k.p.Name, len(nonce), k.p.Nonce)
	}
	if len(text) > cardMessage-k.p.Output || len(additional) > regs.GCMMaxAAD {
		return qverr.New(qverr.Unsupported, "the card takes at most %d bytes and %d of additional data", cardMessage-k.p.Output, regs.GCMMaxAAD)
	}
	return nil
}

func (k *cardAEAD) Seal(ctx context.Context, dst, nonce, plaintext, additional []byte) ([]byte, error) {
	if err := k.check(qverr.PQCEncrypt, nonce, plaintext, additional); err != nil {
		return nil, err
	}
	out, room := extend(dst, len(plaintext)+k.p.Output)
	err := k.c.do(ctx, qverr.PQCEncrypt, func(ctx context.Context, card *quac100.Card) error {
		return card.EncryptGCM(ctx, k.inline(), nonce, additional, plaintext, room)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (k *cardAEAD) Open(ctx context.Context, dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	if len(ciphertext) < k.p.Output {
		return nil, qverr.New(qverr.PQCDecrypt, "a ciphertext of %d bytes has no tag", len(ciphertext))
	}
	text := ciphertext[:len(ciphertext)-k.p.Output]
	if err := k.check(qverr.PQCDecrypt, nonce, text, additional); err != nil {
		return nil, err
	}
	out, room := extend(dst, len(text))
	err := k.c.do(ctx, qverr.PQCDecrypt, func(ctx context.Context, card *quac100.Card) error {
		return card.DecryptGCM(ctx, k.inline(), nonce, additional, ciphertext, room)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// extend makes room for n bytes behind dst.
func extend(dst []byte, n int) (out, room []byte) {
	out = slices.Grow(dst, n)[:len(dst)+n]
	return out, out[len(dst):]
}
