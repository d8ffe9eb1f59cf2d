package pqc

import (
	"context"
	"hash"
	"sync"

	"quantavirt/internal/qverr"
)

// Supports tells whether some provider has an algorithm.
func (s *Service) Supports(a Algorithm) bool { return s.software.Supports(a) }

// Random fills p.
func (s *Service) Random(ctx context.Context, p []byte) error {
	return s.serve(0, func(by Provider) error { return by.Random(ctx, p) })
}

// GenerateKey makes a key pair. A seed is expanded in software: it is here
// already, and the card takes none in its FIPS mode.
func (s *Service) GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error {
	if seed != nil {
		return s.software.GenerateKey(ctx, a, seed, public, secret)
	}
	return s.serve(a, func(by Provider) error { return by.GenerateKey(ctx, a, nil, public, secret) })
}

// PublicKey is the public key of a secret key, by software: the secret is here.
func (s *Service) PublicKey(ctx context.Context, a Algorithm, secret []byte) ([]byte, error) {
	return s.software.PublicKey(ctx, a, secret)
}

// Hash is a fresh hash.
func (s *Service) Hash(a Algorithm) (h hash.Hash, err error) {
	err = s.serve(a, func(by Provider) (err error) { h, err = by.Hash(a); return err })
	return h, err
}

// XOF is a fresh extendable-output function.
func (s *Service) XOF(a Algorithm) (x XOF, err error) {
	err = s.serve(a, func(by Provider) (err error) { x, err = by.XOF(a); return err })
	return x, err
}

// KDF fills key from a secret.
func (s *Service) KDF(a Algorithm, key, secret, salt, info []byte) error {
	return s.serve(a, func(by Provider) error { return by.KDF(a, key, secret, salt, info) })
}

// key is a key that can be used by whichever provider serves: it is loaded into
// each when that is called for the first time.
type key[K any] struct {
	s    *Service
	a    Algorithm
	load func(Provider, context.Context, Algorithm, []byte) (K, error)

	mu       sync.Mutex
	material []byte // nil after Destroy
	loaded   map[Provider]K
}

// newKey loads a key into the provider that serves now, so that what is wrong
// with it shows.
func newKey[K any](ctx context.Context, s *Service, a Algorithm, material []byte, load func(Provider, context.Context, Algorithm, []byte) (K, error)) (*key[K], error) {
	k := &key[K]{s: s, a: a, load: load, material: append([]byte{}, material...), loaded: make(map[Provider]K)}
	if err := k.use(ctx, func(K) error { return nil }); err != nil {
		k.Destroy()
		return nil, err
	}
	return k, nil
}

func (k *key[K]) use(ctx context.Context, call func(K) error) error {
	return k.s.serve(k.a, func(by Provider) error {
		in, err := k.in(ctx, by)
		if err != nil {
			return err
		}
		return call(in)
	})
}

func (k *key[K]) in(ctx context.Context, by Provider) (in K, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.material == nil {
		return in, qverr.New(qverr.PQCKeyNotFound, "the key is destroyed")
	}
	in, ok := k.loaded[by]
	if ok {
		return in, nil
	}
	if in, err = k.load(by, ctx, k.a, k.material); err == nil {
		k.loaded[by] = in
	}
	return in, err
}

// Destroy wipes the key here and in every provider that has it.
func (k *key[K]) Destroy() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, in := range k.loaded {
		if d, ok := any(in).(Destroyer); ok {
			d.Destroy()
		}
	}
	clear(k.material)
	k.material, k.loaded = nil, nil
}

type policyEncapsulator struct{ *key[Encapsulator] }

// Encapsulator loads a public key.
func (s *Service) Encapsulator(ctx context.Context, a Algorithm, public []byte) (Encapsulator, error) {
	k, err := newKey(ctx, s, a, public, Provider.Encapsulator)
	if err != nil {
		return nil, err
	}
	return policyEncapsulator{k}, nil
}

func (k policyEncapsulator) Encapsulate(ctx context.Context, ciphertext, shared []byte) error {
	return k.use(ctx, func(in Encapsulator) error { return in.Encapsulate(ctx, ciphertext, shared) })
}

type policyDecapsulator struct{ *key[Decapsulator] }

// Decapsulator loads a secret key.
func (s *Service) Decapsulator(ctx context.Context, a Algorithm, secret []byte) (Decapsulator, error) {
	k, err := newKey(ctx, s, a, secret, Provider.Decapsulator)
	if err != nil {
		return nil, err
	}
	return policyDecapsulator{k}, nil
}

func (k policyDecapsulator) Decapsulate(ctx context.Context, shared, ciphertext []byte) error {
	return k.use(ctx, func(in Decapsulator) error { return in.Decapsulate(ctx, shared, ciphertext) })
}

type policySigner struct{ *key[Signer] }

// Signer loads a secret key.
func (s *Service) Signer(ctx context.Context, a Algorithm, secret []byte) (Signer, error) {
	k, err := newKey(ctx, s, a, secret, Provider.Signer)
	if err != nil {
		return nil, err
	}
	return policySigner{k}, nil
}

func (k policySigner) Sign(ctx context.Context, signature, message []byte, o *SignOptions) error {
	return k.use(ctx, func(in Signer) error { return in.Sign(ctx, signature, message, o) })
}

type policyVerifier struct{ *key[Verifier] }

// Verifier loads a public key.
func (s *Service) Verifier(ctx context.Context, a Algorithm, public []byte) (Verifier, error) {
	k, err := newKey(ctx, s, a, public, Provider.Verifier)
	if err != nil {
		return nil, err
	}
	return policyVerifier{k}, nil
}

func (k policyVerifier) Verify(ctx context.Context, message, signature []byte, o *SignOptions) error {
	return k.use(ctx, func(in Verifier) error { return in.Verify(ctx, message, signature, o) })
}

type policyAEAD struct{ *key[AEAD] }

// AEAD loads a key.
func (s *Service) AEAD(ctx context.Context, a Algorithm, material []byte) (AEAD, error) {
	k, err := newKey(ctx, s, a, material, Provider.AEAD)
	if err != nil {
		return nil, err
	}
	return policyAEAD{k}, nil
}

func (k policyAEAD) Seal(ctx context.Context, dst, nonce, plaintext, additional []byte) (out []byte, err error) {
	err = k.use(ctx, func(in AEAD) (err error) { out, err = in.Seal(ctx, dst, nonce, plaintext, additional); return err })
	return out, err
}

func (k policyAEAD) Open(ctx context.Context, dst, nonce, ciphertext, additional []byte) (out []byte, err error) {
	err = k.use(ctx, func(in AEAD) (err error) { out, err = in.Open(ctx, dst, nonce, ciphertext, additional); return err })
	return out, err
}
