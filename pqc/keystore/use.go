package keystore

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc"
)

// saveAfter is after how many uses their numbers are written: so many a crash can
// lose at most.
const saveAfter = 128

// Sign signs a message. PQC_ERR_KEY_NOT_FOUND, PQC_ERR_KEY_EXPIRED, QV_ERR_STATE: no such
// key, or one whose time is over; PQC_ERR_ALGORITHM, QV_ERR_PERM: it cannot, or may not.
func (s *Store) Sign(ctx context.Context, ref string, message []byte, o *pqc.SignOptions) (signature []byte, err error) {
	err = s.use(ref, UsageSign, func(k *entry, p pqc.Params) (err error) {
		signature = make([]byte, p.Output)
		if k.Card != "" {
			if s.Card == nil {
				return qverr.New(qverr.QUACNotFound, "key %s is on card %s, which is not there", k.name(), k.Card)
			}
			return s.Card.SignStored(ctx, k.Card, k.handle(), k.Algorithm, signature, message, o)
		}
		secret.Do(func() {
			var signer pqc.Signer
			if signer, err = s.Provider.Signer(ctx, k.Algorithm, k.secret.Bytes()); err == nil {
				defer signer.Destroy()
				err = signer.Sign(ctx, signature, message, o)
			}
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}

// Decapsulate recovers a shared key, which the caller wipes. Errors as of Sign, and
// PQC_ERR_DECAPS for a ciphertext of the wrong size.
func (s *Store) Decapsulate(ctx context.Context, ref string, ciphertext []byte) (shared *secret.Buffer, err error) {
	err = s.use(ref, UsageDecapsulate, func(k *entry, p pqc.Params) error {
		if shared, err = secret.New(p.Shared); err != nil {
			return err
		}
		if k.Card != "" {
			if s.Card == nil {
				return qverr.New(qverr.QUACNotFound, "key %s is on card %s, which is not there", k.name(), k.Card)
			}
			return s.Card.DecapsulateStored(ctx, k.Card, k.handle(), k.Algorithm, shared.Bytes(), ciphertext)
		}
		secret.Do(func() {
			var d pqc.Decapsulator
			if d, err = s.Provider.Decapsulator(ctx, k.Algorithm, k.secret.Bytes()); err == nil {
				defer d.Destroy()
				err = d.Decapsulate(ctx, shared.Bytes(), ciphertext)
			}
		})
		return err
	})
	if err != nil {
		shared.Wipe()
		return nil, err
	}
	return shared, nil
}

// use does one thing with a key that may do it, and counts that.
func (s *Store) use(ref string, what Usage, do func(*entry, pqc.Params) error) error {
	save, err := s.useLocked(ref, what, do)
	if save {
		s.saveUses()
	}
	return err
}

func (s *Store) useLocked(ref string, what Usage, do func(*entry, pqc.Params) error) (save bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.find(ref)
	if err != nil {
		return false, err
	}
	if err := s.describe(k).may(what, s.Now()); err != nil { // others count its uses
		return false, err
	}
	params, err := k.Algorithm.Params()
	if err != nil {
		return false, err
	}
	if err := do(k, params); err != nil {
		return false, err
	}
	s.usesMu.Lock()
	defer s.usesMu.Unlock()
	k.Uses++
	k.UsedAt = s.Now().UTC()
	s.unsaved++
	return s.unsaved >= saveAfter, nil
}

// saveUses writes the numbers of uses. What keeps it from that will keep the next change
// too, which says so.
func (s *Store) saveUses() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condition != Open || s.unsaved < saveAfter {
		return
	}
	if err := s.write(); err != nil {
		s.Log.Warn("the numbers of uses are not saved", "err", err)
	}
}
