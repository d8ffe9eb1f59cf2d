package keystore

import (
	"context"
	"encoding/binary"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc"
)

// Card keeps keys that never leave it. pqc.Service is one: the card that is in use.
type Card interface {
	// GenerateStored makes a key pair on the card, fills public, and returns the card's
	// serial number and a handle that is never 0.
	GenerateStored(ctx context.Context, a pqc.Algorithm, public []byte) (serial string, handle uint32, err error)
	SignStored(ctx context.Context, serial string, handle uint32, a pqc.Algorithm, signature, message []byte, o *pqc.SignOptions) error
	DecapsulateStored(ctx context.Context, serial string, handle uint32, a pqc.Algorithm, shared, ciphertext []byte) error
	DestroyStored(ctx context.Context, serial string, handle uint32) error
}

// handleSize is that of a key on a card, in the place of its secret.
const handleSize = 4

func (k *entry) handle() uint32 { return binary.LittleEndian.Uint32(k.secret.Bytes()) }

// onCard makes a key pair on the card.
func (s *Store) onCard(ctx context.Context, r Request) (*entry, error) {
	if s.Card == nil {
		return nil, qverr.New(qverr.Unsupported, "the keystore has no card")
	}
	params, err := r.Algorithm.Params()
	if err != nil {
		return nil, err
	}
	held, err := secret.New(handleSize)
	if err != nil {
		return nil, err
	}
	public := make([]byte, params.PublicKey)
	serial, handle, err := s.Card.GenerateStored(ctx, r.Algorithm, public)
	if err != nil {
		held.Wipe()
		return nil, err
	}
	binary.LittleEndian.PutUint32(held.Bytes(), handle)
	k := &entry{Key: s.newKey(r, Generated, public), secret: held}
	k.Card = serial
	return k, nil
}

// discard lets go of a key that did not get into the store.
func (s *Store) discard(ctx context.Context, k *entry) error {
	var err error
	if k.Card != "" && k.secret.Bytes() != nil {
		err = s.Card.DestroyStored(context.WithoutCancel(ctx), k.Card, k.handle())
	}
	k.secret.Wipe()
	return err
}

// leaveCard destroys what a card keeps of a key. One that is gone there is no error.
func (s *Store) leaveCard(ctx context.Context, ref string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.find(ref)
	if err != nil || k.Card == "" {
		return err
	}
	if s.Card == nil {
		return qverr.New(qverr.QUACNotFound, "the key is on card %s, which is not there", k.Card)
	}
	if err := s.Card.DestroyStored(ctx, k.Card, k.handle()); err != nil && qverr.CodeOf(err) != qverr.PQCKeyNotFound {
		return err
	}
	return nil
}
