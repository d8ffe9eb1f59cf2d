package pqc

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// Keys in the card's own key store never leave it. They are named by the card's serial
// number and a handle, and are of that card alone: no policy finds another provider for them.

// storedUsage is what a stored key pair of a family may do.
var storedUsage = map[Family]regs.Usage{
	FamilyKEM:       regs.UsageEncrypt | regs.UsageDecrypt,
	FamilySignature: regs.UsageSign | regs.UsageVerify,
}

// GenerateStored makes a key pair that stays on the card, over its resets too, and fills
// public. QUAC100_ERR_NOT_FOUND: the node has no card.
func (s *Service) GenerateStored(ctx context.Context, a Algorithm, public []byte) (serial string, handle uint32, err error) {
	p, err := a.Params()
	if err != nil {
		return "", 0, err
	}
	c, serial, err := s.holder(ctx)
	if err != nil {
		return "", 0, err
	}
	attrs := &regs.Attributes{
		Alg: regs.Alg(a), Usage: storedUsage[p.Family], Flags: regs.AttrPersistent | regs.AttrSensitive | regs.AttrDestroyable,
	}
	var h quac100.Handle
	switch p.Family {
	case FamilyKEM:
		attrs.Type = regs.KeyKEMPair
		h, err = c.KEMKeygenStored(ctx, regs.Alg(a), nil, attrs, public)
	case FamilySignature:
		attrs.Type = regs.KeySignaturePair
		h, err = c.SignKeygenStored(ctx, regs.Alg(a), nil, attrs, public)
	default:
		err = qverr.New(qverr.PQCAlgorithm, "a card keeps no key pairs of %s", a)
	}
	return serial, uint32(h), as(qverr.PQCKeygen, err)
}

// SignStored signs by a stored key.
func (s *Service) SignStored(ctx context.Context, serial string, handle uint32, a Algorithm, signature, message []byte, o *SignOptions) error {
	p, err := FamilySignature.of(a)
	if err != nil {
		return err
	}
	c, err := s.holderOf(ctx, serial)
	if err != nil {
		return err
	}
	k := cardKey{p: p}
	options, err := k.signOptions(message, o)
	if err != nil {
		return err
	}
	return as(qverr.PQCSign, c.Sign(ctx, regs.Alg(a), quac100.Stored(quac100.Handle(handle)), options, message, signature))
}

// DecapsulateStored recovers a shared key by a stored key.
func (s *Service) DecapsulateStored(ctx context.Context, serial string, handle uint32, a Algorithm, shared, ciphertext []byte) error {
	p, err := FamilyKEM.of(a)
	if err == nil {
		err = p.checkDecapsulate(shared, ciphertext)
	}
	if err != nil {
		return err
	}
	c, err := s.holderOf(ctx, serial)
	if err != nil {
		return err
	}
	return as(qverr.PQCDecaps, c.Decapsulate(ctx, regs.Alg(a), quac100.Stored(quac100.Handle(handle)), ciphertext, shared))
}

// DestroyStored destroys a stored key. PQC_ERR_KEY_NOT_FOUND: it is gone already.
func (s *Service) DestroyStored(ctx context.Context, serial string, handle uint32) error {
	c, err := s.holderOf(ctx, serial)
	if err != nil {
		return err
	}
	return c.DeleteKey(ctx, quac100.Handle(handle))
}

// holder is the first healthy card in use, with its serial number.
func (s *Service) holder(ctx context.Context) (*quac100.Card, string, error) {
	c, serial, err := s.find(ctx, func(string) bool { return true })
	if err == nil && c == nil {
		err = qverr.New(qverr.QUACNotFound, "no card answers")
	}
	return c, serial, err
}

// holderOf is the card in use that has a serial number. QUAC100_ERR_NOT_FOUND: it is not
// there.
func (s *Service) holderOf(ctx context.Context, serial string) (*quac100.Card, error) {
	c, _, err := s.find(ctx, func(is string) bool { return is == serial })
	if err == nil && c == nil {
		err = qverr.New(qverr.QUACNotFound, "the key is on card %s, which is not in use", serial)
	}
	return c, err
}

// find is the first healthy card whose serial number fits, nil if there are only
// others.
func (s *Service) find(ctx context.Context, fits func(serial string) bool) (*quac100.Card, string, error) {
	cards, err := s.inService()
	if err == nil {
		err = cards.Healthy()
	}
	if err != nil {
		return nil, "", err
	}
	for _, card := range cards.pool.Cards() {
		serial, err := card.Serial(ctx)
		if err != nil {
			s.log.Warn("a card does not tell its serial number", "card", card.Address(), "err", err)
			continue
		}
		if fits(serial) {
			return card, serial, nil
		}
	}
	return nil, "", nil
}
