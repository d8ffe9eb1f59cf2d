package keystore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
)

// Status is what is known of the keystore.
type Status struct {
	Condition  Condition
	Err        error // why it is not open
	Keys       int
	Generation uint64
	Counter    string   // what older files are found by
	OpenedBy   []string // what opens it: ByTPM or ByCard, ByPassphrase
}

// Status tells how the keystore is.
func (s *Store) Status() Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Status{Condition: s.condition, Err: s.err, Keys: len(s.keys), Generation: s.header.Generation, Counter: s.header.Counter}
	if s.header.Sealed != nil {
		st.OpenedBy = append(st.OpenedBy, s.header.Sealed.By)
	}
	if s.header.Passphrase != nil {
		st.OpenedBy = append(st.OpenedBy, ByPassphrase)
	}
	return st
}

// List lists the keys, in the order of their making.
func (s *Store) List() ([]Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.condition != Open {
		return nil, s.err
	}
	keys := make([]Key, 0, len(s.keys))
	for _, k := range s.keys {
		keys = append(keys, s.describe(k))
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return keys, nil
}

// Get returns one key by its id or label. PQC_ERR_KEY_NOT_FOUND: there is none.
func (s *Store) Get(ref string) (Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.find(ref)
	if err != nil {
		return Key{}, err
	}
	return s.describe(k), nil
}

// describe copies a key, whose uses others count meanwhile.
func (s *Store) describe(k *entry) Key {
	s.usesMu.Lock()
	defer s.usesMu.Unlock()
	return k.Key
}

// find finds a key by its id, or by its label the one that is not retired. s.mu is
// held.
func (s *Store) find(ref string) (*entry, error) {
	if s.condition != Open {
		return nil, s.err
	}
	if k := s.keys[ref]; k != nil {
		return k, nil
	}
	if k := s.labelled(ref); k != nil {
		return k, nil
	}
	return nil, qverr.New(qverr.PQCKeyNotFound, "the keystore has no key %.64q", ref)
}

func (s *Store) labelled(label string) *entry {
	for _, k := range s.keys {
		if label != "" && k.Label == label && k.RetiredAt.IsZero() {
			return k
		}
	}
	return nil
}

// Generate makes a key pair.
func (s *Store) Generate(ctx context.Context, r Request) (Key, error) {
	if err := r.check(s.Now()); err != nil {
		return Key{}, err
	}
	made, err := s.generate(ctx, r)
	if err != nil {
		return Key{}, err
	}
	return s.add(ctx, made)
}

// generate makes a key pair from a seed, which is what is kept, or on the card.
func (s *Store) generate(ctx context.Context, r Request) (*entry, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if r.OnCard {
		return s.onCard(ctx, r)
	}
	params, err := r.Algorithm.Params()
	if err != nil {
		return nil, err
	}
	seed, err := secret.New(params.Seed)
	if err != nil {
		return nil, err
	}
	public := make([]byte, params.PublicKey)
	secret.Do(func() {
		if err = s.Provider.Random(ctx, seed.Bytes()); err == nil {
			err = s.expand(ctx, r, seed.Bytes(), public)
		}
	})
	if err != nil {
		seed.Wipe()
		return nil, err
	}
	return &entry{Key: s.newKey(r, Generated, public), secret: seed}, nil
}

// expand makes the public key of a seed.
func (s *Store) expand(ctx context.Context, r Request, seed, public []byte) error {
	params, err := r.Algorithm.Params()
	if err != nil {
		return err
	}
	expanded, err := secret.New(params.SecretKey)
	if err != nil {
		return err
	}
	defer expanded.Wipe()
	return s.Provider.GenerateKey(ctx, r.Algorithm, seed, public, expanded.Bytes())
}

func (s *Store) newKey(r Request, origin Origin, public []byte) Key {
	return Key{
		ID: uuid.NewString(), Label: r.Label, Algorithm: r.Algorithm, Usage: slices.Clone(r.Usage), Extractable: r.Extractable,
		Origin: origin, Version: 1, CreatedAt: s.Now().UTC().Truncate(time.Millisecond), ExpiresAt: r.ExpiresAt.UTC(), Public: public,
	}
}

func (s *Store) ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.err
}

// add puts a key into the store, which owns its secret from here on.
func (s *Store) add(ctx context.Context, k *entry) (Key, error) {
	err := s.change(func() error {
		if err := s.room(); err != nil {
			return err
		}
		if other := s.labelled(k.Label); other != nil {
			return qverr.New(qverr.Exist, "key %s has the label %q", other.ID, k.Label).WithHint("rotate it, or choose another label")
		}
		s.keys[k.ID] = k
		return nil
	})
	if err != nil {
		return Key{}, errors.Join(err, s.discard(ctx, k))
	}
	s.Log.Info("a key is in the keystore", "id", k.ID, "algorithm", k.Algorithm.String(), "origin", string(k.Origin))
	return k.Key, nil
}

func (s *Store) room() error {
	if len(s.keys) >= maxKeys {
		return qverr.New(qverr.Limit, "the keystore holds %d keys, which is all it may", maxKeys)
	}
	return nil
}

// Rotate makes a new key in the place of one, which is retired. The new one is like the
// old one; unless expires says otherwise it lives as long as that was to.
func (s *Store) Rotate(ctx context.Context, ref string, expires time.Time) (Key, error) {
	old, err := s.Get(ref)
	if err != nil {
		return Key{}, err
	}
	if expires.IsZero() && !old.ExpiresAt.IsZero() {
		expires = s.Now().Add(old.ExpiresAt.Sub(old.CreatedAt))
	}
	r := Request{Algorithm: old.Algorithm, Label: old.Label, Usage: old.Usage, ExpiresAt: expires, Extractable: old.Extractable, OnCard: old.Card != ""}
	if err := r.check(s.Now()); err != nil {
		return Key{}, err
	}
	made, err := s.generate(ctx, r)
	if err != nil {
		return Key{}, err
	}
	err = s.change(func() error {
		was, err := s.find(old.ID)
		if err != nil {
			return err
		}
		if !was.RetiredAt.IsZero() {
			return qverr.New(qverr.State, "key %s was rotated already", was.name()).WithHint("the key that replaced it is %s", was.ReplacedBy)
		}
		if err := s.room(); err != nil {
			return err
		}
		made.Version, made.Replaces = was.Version+1, was.ID
		was.RetiredAt, was.ReplacedBy = made.CreatedAt, made.ID
		s.keys[made.ID] = made
		return nil
	})
	if err != nil {
		return Key{}, errors.Join(err, s.discard(ctx, made))
	}
	s.Log.Info("a key is rotated", "old", old.ID, "new", made.ID)
	return made.Key, nil
}

// Expire lets a key expire at a time, which may be now; zero: never.
func (s *Store) Expire(ref string, at time.Time) (Key, error) {
	var k *entry
	err := s.change(func() (err error) {
		if k, err = s.find(ref); err == nil {
			k.ExpiresAt = at.UTC().Truncate(time.Second)
		}
		return err
	})
	if err != nil {
		return Key{}, err
	}
	return s.Get(k.ID)
}

// Destroy wipes a key, on its card, in memory and in the file. It is gone.
func (s *Store) Destroy(ctx context.Context, ref string) error {
	if err := s.leaveCard(ctx, ref); err != nil {
		return err
	}
	var k *entry
	err := s.change(func() (err error) {
		if k, err = s.find(ref); err == nil {
			delete(s.keys, k.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	k.secret.Wipe()
	s.Log.Info("a key is destroyed", "id", k.ID)
	return nil
}
