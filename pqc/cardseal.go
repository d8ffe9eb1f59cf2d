package pqc

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// CardSeal is a secret under an AES-256 key that lives on a card and never leaves it. It
// needs no protection: only that card opens it.
type CardSeal struct {
	Serial string `json:"serial"` // of the card
	Handle uint32 `json:"handle"` // of the key there
	Nonce  []byte `json:"nonce"`
	Sealed []byte `json:"sealed"` // AES-256-GCM
}

// sealAttributes are those of the key that seals for a purpose.
func sealAttributes(purpose string) *regs.Attributes {
	return &regs.Attributes{
		Alg: regs.AES256GCM, Type: regs.KeySymmetric, Usage: regs.UsageEncrypt | regs.UsageDecrypt,
		Flags: regs.AttrPersistent | regs.AttrSensitive | regs.AttrDestroyable, Label: purpose,
	}
}

// SealByCard seals a secret by the first healthy card. The purpose, at most 64 bytes, is
// the label of the card's key, which is made when the card has none of that name, and is
// needed again to open it. QUAC100_ERR_NOT_FOUND: the node has no card.
func (s *Service) SealByCard(ctx context.Context, purpose string, secret []byte) (CardSeal, error) {
	card, serial, err := s.holder(ctx)
	if err != nil {
		return CardSeal{}, err
	}
	key, err := sealingKey(ctx, card, purpose)
	if err != nil {
		return CardSeal{}, as(qverr.PQCKeygen, err)
	}
	out := CardSeal{Serial: serial, Handle: uint32(key), Nonce: make([]byte, regs.GCMNonceSize), Sealed: make([]byte, len(secret)+regs.GCMTagSize)}
	err = card.EncryptGCMFresh(ctx, quac100.Stored(key), out.additional(purpose), secret, out.Nonce, out.Sealed)
	return out, as(qverr.PQCEncrypt, err)
}

// additional binds what is sealed to its purpose and to the card.
func (c CardSeal) additional(purpose string) []byte { return []byte(purpose + "\x00" + c.Serial) }

// sealingKey finds the card's key for a purpose, or makes it.
func sealingKey(ctx context.Context, card *quac100.Card, purpose string) (quac100.Handle, error) {
	keys, err := card.ListKeysOf(ctx, regs.KeySymmetric)
	if err != nil {
		return 0, err
	}
	want := sealAttributes(purpose)
	for _, key := range keys {
		is, err := card.KeyInfo(ctx, key)
		if err != nil {
			return 0, err
		}
		if is.Label == purpose && is.Alg == want.Alg && is.State == regs.KeyActive && is.Usage == want.Usage && is.Flags == want.Flags {
			return key, nil
		}
	}
	return card.GenerateAESKey(ctx, want)
}

// OpenByCard opens what SealByCard has sealed; the caller wipes it. QUAC100_ERR_NOT_FOUND:
// the card is not in use; PQC_ERR_KEY_NOT_FOUND and PQC_ERR_DECRYPT: it is another in spite
// of its serial number, or its keys were destroyed.
func (s *Service) OpenByCard(ctx context.Context, purpose string, sealed CardSeal) ([]byte, error) {
	if len(sealed.Nonce) != regs.GCMNonceSize || len(sealed.Sealed) < regs.GCMTagSize {
		return nil, qverr.New(qverr.PQCDecrypt, "what the card sealed has a nonce of %d bytes and %d others", len(sealed.Nonce), len(sealed.Sealed))
	}
	card, err := s.holderOf(ctx, sealed.Serial)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, len(sealed.Sealed)-regs.GCMTagSize)
	key := quac100.Stored(quac100.Handle(sealed.Handle))
	if err := card.DecryptGCM(ctx, key, sealed.Nonce, sealed.additional(purpose), sealed.Sealed, secret); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}
