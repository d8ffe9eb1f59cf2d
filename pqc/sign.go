package pqc

import (
	"context"
	"io"

	"quantavirt/internal/qverr"
	keep "quantavirt/internal/secret"
)

// signEngine is an implementation of a signature scheme.
type signEngine struct {
	derive   func(seed, public, secret []byte) error
	public   func(secret []byte) ([]byte, error) // of the expanded form
	check    func(secret []byte) error           // of the expanded form, beyond its size
	signer   func(secret []byte) (signKey, error)
	verifier func(public []byte) (verifyFunc, error)
	random   int // bytes that hedge a signature
}

// signKey is a secret key: what to wipe, and its use; rnd is nil for the
// deterministic variant.
type signKey struct {
	secret any
	sign   func(signature []byte, m encoded, rnd []byte) error
}

type verifyFunc func(signature []byte, m encoded) bool

// encoded is a message with all that goes into M' of FIPS 204, algorithms 2
// and 4.
type encoded struct {
	message, context []byte
	hash             Algorithm // 0 for the pure form
}

// encode checks options against the algorithm.
func encode(p Params, message []byte, o *SignOptions) (encoded, error) {
	if o == nil {
		return encoded{message: message}, nil
	}
	if len(o.Context) > 255 {
		return encoded{}, qverr.New(qverr.PQCParamSet, "%s: a context of %d bytes, 255 is the most", p.Name, len(o.Context))
	}
	if o.Hash != 0 {
		h, err := o.Hash.Params()
		if err != nil {
			return encoded{}, err
		}
		if h.Family != FamilyHash && h.Family != FamilyXOF || h.Strength < p.Strength {
			return encoded{}, qverr.New(qverr.PQCParamSet, "%s cannot be pre-hashed with %s", p.Name, o.Hash)
		}
	}
	return encoded{message, o.Context, o.Hash}, nil
}

// write writes M'.
func (m encoded) write(w io.Writer) {
	form := byte(0)
	body := m.message
	if m.hash != 0 {
		form, body = 1, digest(m.hash, m.message)
	}
	for _, p := range [...][]byte{{form, byte(len(m.context))}, m.context, body} {
		_, _ = w.Write(p) // a hash, which never fails
	}
}

// Signer loads a secret key.
func (s *software) Signer(_ context.Context, a Algorithm, secret []byte) (Signer, error) {
	p, err := s.use(FamilySignature, a)
	if err != nil {
		return nil, err
	}
	if len(secret) != p.SecretKey && len(secret) != p.Seed {
		return nil, qverr.New(qverr.PQCSign, "%s secret key of %d bytes, want %d or a seed of %d", a, len(secret), p.SecretKey, p.Seed)
	}
	var k signKey
	keep.Do(func() { k, err = s.engines.sign[a].signer(secret) })
	if err != nil {
		return nil, qverr.New(qverr.PQCSign, "%s secret key: %w", a, err)
	}
	return &softSigner{s, p, k}, nil
}

type softSigner struct {
	s   *software
	p   Params
	key signKey
}

func (k *softSigner) Sign(_ context.Context, signature, message []byte, o *SignOptions) error {
	if o != nil && o.Deterministic {
		return k.signWith(nil, signature, message, o)
	}
	rnd := make([]byte, k.s.engines.sign[k.p.Algorithm].random)
	k.s.random(rnd)
	return k.signWith(rnd, signature, message, o)
}

// signWith takes the randomness, for known-answer tests; nil is the
// deterministic variant.
func (k *softSigner) signWith(rnd, signature, message []byte, o *SignOptions) error {
	if err := k.s.Healthy(); err != nil {
		return err
	}
	if k.key.sign == nil {
		return destroyed(qverr.PQCSign)
	}
	m, err := encode(k.p, message, o)
	if err != nil {
		return err
	}
	if len(signature) != k.p.Output {
		return qverr.New(qverr.PQCSign, "%s: room for a signature of %d bytes, want %d", k.p.Name, len(signature), k.p.Output)
	}
	keep.Do(func() { err = k.key.sign(signature, m, rnd) })
	if err != nil {
		return qverr.New(qverr.PQCSign, "sign with %s: %w", k.p.Name, err)
	}
	return nil
}

func (k *softSigner) Destroy() {
	wipe(k.key.secret)
	k.key = signKey{}
}

// Verifier loads a public key.
func (s *software) Verifier(_ context.Context, a Algorithm, public []byte) (Verifier, error) {
	p, err := s.use(FamilySignature, a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.PQCVerify, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	f, err := s.engines.sign[a].verifier(public)
	if err != nil {
		return nil, qverr.New(qverr.PQCVerify, "%s public key: %w", a, err)
	}
	return &softVerifier{s, p, f}, nil
}

type softVerifier struct {
	s      *software
	p      Params
	verify verifyFunc
}

func (v *softVerifier) Verify(_ context.Context, message, signature []byte, o *SignOptions) error {
	if err := v.s.Healthy(); err != nil {
		return err
	}
	m, err := encode(v.p, message, o)
	if err != nil {
		return err
	}
	if len(signature) != v.p.Output || !v.verify(signature, m) {
		return qverr.New(qverr.PQCVerify, "this is no %s signature of the message by the key", v.p.Name)
	}
	return nil
}
