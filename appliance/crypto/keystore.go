package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/internal/ukifile"
	"quantavirt/pqc/envelope"
	"quantavirt/pqc/keystore"
)

// stateCounter counts the keystore's generations in the node's state file.
type stateCounter struct{ db *store.DB }

const counterKey = "keystore-generation"

type generation struct {
	Generation uint64 `json:"generation"`
}

// Name is "state".
func (stateCounter) Name() string { return "state" }

// Value is the count; QV_ERR_NOENT when nothing was counted yet.
func (c stateCounter) Value() (uint64, error) {
	var g generation
	err := c.db.Get(store.Settings, counterKey, &g)
	return g.Generation, err
}

// Count counts up by one.
func (c stateCounter) Count() (n uint64, err error) {
	err = c.db.Update(func(tx *store.Tx) error {
		var g generation
		if err := tx.Get(store.Settings, counterKey, &g); err != nil && !errors.Is(err, qverr.NoEnt) {
			return err
		}
		g.Generation++
		n = g.Generation
		return tx.Put(store.Settings, counterKey, g)
	})
	return n, err
}

// keys is the keystore, which is opened at its first use: a start of the daemon does not
// wait for that. QV_ERR_AGAIN: it is not known yet what serves.
func (s *Service) keys(ctx context.Context) (*keystore.Store, *envelope.Recipient, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.keystoreMu.Lock()
	defer s.keystoreMu.Unlock()
	if s.keystore != nil {
		return s.keystore, s.envelopes, nil
	}
	if s.envelopes, err = envelope.NewRecipient(); err != nil {
		return nil, nil, err
	}
	o := keystore.Options{Dir: s.Keystore, Provider: p, Card: p, Counter: stateCounter{s.DB}, Log: s.log,
		Others: []keystore.Sealer{keystore.CardSealer{Card: p}}}
	if s.TPM != nil {
		by := keystore.TPM{With: s.TPM}
		if err := by.Usable(); err == nil {
			o.Sealer, o.Counter = by, by
		} else {
			s.log.Info("the TPM does not keep the keystore", "err", err)
		}
	}
	s.keystore = keystore.New(o)
	_ = s.keystore.Load() // every operation says so
	return s.keystore, s.envelopes, nil
}

// cardsChanged opens the keystore if it waits for a card that has come.
func (s *Service) cardsChanged() {
	s.keystoreMu.Lock()
	defer s.keystoreMu.Unlock()
	if s.keystore == nil {
		return
	}
	_ = s.keystore.LoadAgain() // every operation says so
}

func (s *Service) closeKeystore() error {
	s.keystoreMu.Lock()
	defer s.keystoreMu.Unlock()
	if s.keystore == nil {
		return nil
	}
	return s.keystore.Close()
}

// ResealFor seals the keystore for one more system, which is about to be tried. What the
// TPM does not keep needs none of that.
func (s *Service) ResealFor(ctx context.Context, uki io.ReaderAt, size int64, name string) error {
	if s.TPM == nil {
		return nil
	}
	store, _, err := s.keys(ctx)
	if err != nil {
		return err
	}
	if st := store.Status(); st.Condition != keystore.Open {
		return nil // it asks for its passphrase in either system
	}
	f, err := ukifile.Open(uki, size)
	if err != nil {
		return err
	}
	m, err := f.Measure()
	if err != nil {
		return err
	}
	return store.Reseal(func(master, before []byte) ([]byte, error) {
		return keystore.TPM{With: s.TPM}.SealAlso(master, json.RawMessage(before), m.Value, name)
	})
}

// KeystoreStatus shows how the keystore is.
func (s *Service) KeystoreStatus(ctx context.Context) (spec.Keystore, error) {
	store, envelopes, err := s.keys(ctx)
	if err != nil {
		return spec.Keystore{}, err
	}
	st := store.Status()
	return spec.Keystore{
		State: spec.KeystoreState(st.Condition), Problem: problemOf(st.Err), Keys: st.Keys, Generation: int64(st.Generation),
		Counter: st.Counter, OpenedBy: st.OpenedBy, EnvelopeKey: envelopes.Public(),
		Memory: spec.SecretMemory{Locked: s.Memory.Locked, NoCoreDump: s.Memory.NoCoreDump, NoSwap: s.Memory.NoSwap, Wiped: s.Memory.Wiped},
	}, nil
}

// InitKeystore makes a keystore.
func (s *Service) InitKeystore(ctx context.Context, in spec.KeystoreInit) (spec.Keystore, error) {
	store, envelopes, err := s.keys(ctx)
	if err != nil {
		return spec.Keystore{}, err
	}
	var text *secret.Buffer
	if len(in.Passphrase) > 0 {
		if text, err = envelopes.Open(envelope.Passphrase, in.Passphrase); err != nil {
			return spec.Keystore{}, err
		}
		defer text.Wipe()
	}
	var passphrase []byte
	if text != nil {
		passphrase = text.Bytes()
	}
	if err := store.Create(passphrase, in.Replace, string(in.SealedBy)); err != nil {
		return spec.Keystore{}, err
	}
	s.log.Info("a keystore is made", "path", filepath.Join(s.Keystore, keystore.FileName))
	return s.KeystoreStatus(ctx)
}

// UnlockKeystore opens the keystore.
func (s *Service) UnlockKeystore(ctx context.Context, in spec.KeystoreUnlock) (spec.Keystore, error) {
	return s.withPassphrase(ctx, in.Passphrase, func(k *keystore.Store, text []byte) error { return k.Unlock(text, in.Recover) })
}

// SetKeystorePassphrase sets the keystore's passphrase.
func (s *Service) SetKeystorePassphrase(ctx context.Context, in spec.KeystorePassphrase) (spec.Keystore, error) {
	return s.withPassphrase(ctx, in.Passphrase, func(k *keystore.Store, text []byte) error { return k.SetPassphrase(text) })
}

func (s *Service) withPassphrase(ctx context.Context, sealed []byte, do func(*keystore.Store, []byte) error) (spec.Keystore, error) {
	store, envelopes, err := s.keys(ctx)
	if err != nil {
		return spec.Keystore{}, err
	}
	text, err := envelopes.Open(envelope.Passphrase, sealed)
	if err != nil {
		return spec.Keystore{}, err
	}
	defer text.Wipe()
	if err := do(store, text.Bytes()); err != nil {
		return spec.Keystore{}, err
	}
	return s.KeystoreStatus(ctx)
}
