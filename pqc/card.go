package pqc

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// cardProvider adapts a card to Provider.
type cardProvider struct{ *quac100.Card }

func (cardProvider) Name() string { return "quac100" }

func (c cardProvider) MLKEM768() KEM { return cardKEM{c.Card} }

type cardKEM struct{ card *quac100.Card }

func (k cardKEM) GenerateKey(ctx context.Context) (public, secret []byte, err error) {
	public, secret, err = k.card.KEMGenerateKey(ctx, regs.MLKEM768)
	return public, secret, as(qverr.PQCKeygen, err)
}

func (k cardKEM) Encapsulate(ctx context.Context, public []byte) (ciphertext, shared []byte, err error) {
	ciphertext, shared, err = k.card.KEMEncapsulate(ctx, regs.MLKEM768, public)
	return ciphertext, shared, as(qverr.PQCEncaps, err)
}

func (k cardKEM) Decapsulate(ctx context.Context, secret, ciphertext []byte) ([]byte, error) {
	shared, err := k.card.KEMDecapsulate(ctx, regs.MLKEM768, secret, ciphertext)
	return shared, as(qverr.PQCDecaps, err)
}

// as gives what the card says of a wrong key or length the code of the
// operation, as software does; a fault of the card keeps its own.
func as(code qverr.Code, err error) error {
	if err == nil || cardFault(err) {
		return err
	}
	return qverr.New(code, "on the card: %w", err)
}
