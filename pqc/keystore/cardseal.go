package keystore

import (
	"context"
	"encoding/json"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// SealingCard seals by a key that lives on a card. pqc.Service is one.
type SealingCard interface {
	SealByCard(ctx context.Context, purpose string, secret []byte) (pqc.CardSeal, error)
	OpenByCard(ctx context.Context, purpose string, sealed pqc.CardSeal) ([]byte, error)
}

// CardSealer keeps the master key by a QUAC 100: sealed under a key that never leaves it.
type CardSealer struct{ Card SealingCard }

// sealPurpose is the label of the key on the card.
const sealPurpose = "quantavirt keystore"

// cardTime is how long the card may take.
const cardTime = 10 * time.Second

// Name is "card".
func (CardSealer) Name() string { return ByCard }

// Seal seals the master key by the card that is in use. QUAC100_ERR_NOT_FOUND: there is none.
func (c CardSealer) Seal(master []byte) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cardTime)
	defer cancel()
	sealed, err := c.Card.SealByCard(ctx, sealPurpose, master)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(sealed)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "encode what the card sealed: %w", err)
	}
	return data, nil
}

// Unseal returns the master key. It takes the very card that has sealed it.
func (c CardSealer) Unseal(data json.RawMessage) ([]byte, error) {
	var sealed pqc.CardSeal
	if err := json.Unmarshal(data, &sealed); err != nil {
		return nil, refused("the keystore's file is damaged: its sealed key: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cardTime)
	defer cancel()
	return c.Card.OpenByCard(ctx, sealPurpose, sealed)
}
