package keystore

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc/keyfile"
)

// Import takes a private key in PKCS #8, whose bytes the caller wipes; the algorithm is
// that of the key. QV_ERR_INVAL: it is malformed; PQC_ERR_KEYGEN: its halves do not
// belong together.
func (s *Store) Import(ctx context.Context, der []byte, r Request) (Key, error) {
	if err := s.ready(); err != nil {
		return Key{}, err
	}
	var kept *secret.Buffer
	var public []byte
	var err error
	secret.Do(func() {
		var private *keyfile.Private
		if private, err = keyfile.ParsePrivate(der); err != nil {
			return
		}
		defer private.Wipe()
		r.Algorithm = private.Algorithm
		if err = r.check(s.Now()); err != nil {
			return
		}
		if public, err = private.Public(ctx, s.Provider); err != nil {
			return
		}
		kept, err = secret.Take(private.Secret())
	})
	if err != nil {
		return Key{}, err
	}
	return s.add(ctx, &entry{Key: s.newKey(r, Imported, append([]byte(nil), public...)), secret: kept})
}

// Export returns a private key in PKCS #8, which the caller wipes: as its seed, if the
// keystore has that. QV_ERR_PERM: it is not extractable.
func (s *Store) Export(ctx context.Context, ref string) (*secret.Buffer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if !k.Extractable {
		return nil, qverr.New(qverr.Perm, "key %s is not extractable", k.name()).WithHint("that is chosen when a key is made")
	}
	var out *secret.Buffer
	secret.Do(func() {
		var private *keyfile.Private
		if private, err = s.private(ctx, k); err != nil {
			return
		}
		defer private.Wipe()
		var der []byte
		if der, err = keyfile.MarshalPrivate(private); err == nil {
			out, err = secret.Take(der)
		}
	})
	return out, err
}

// private is a key as its file format wants it: of SLH-DSA that knows the expanded
// form only. It is a copy.
func (s *Store) private(ctx context.Context, k *entry) (*keyfile.Private, error) {
	p, err := k.Algorithm.Params()
	if err != nil {
		return nil, err
	}
	held := k.secret.Bytes()
	private := &keyfile.Private{Algorithm: k.Algorithm}
	switch {
	case len(held) == p.SecretKey:
		private.Expanded = append([]byte(nil), held...)
	case p.Seed == 32 || p.Seed == 64:
		private.Seed = append([]byte(nil), held...)
	default:
		private.Expanded = make([]byte, p.SecretKey)
		err = s.Provider.GenerateKey(ctx, k.Algorithm, held, make([]byte, p.PublicKey), private.Expanded)
	}
	return private, err
}
