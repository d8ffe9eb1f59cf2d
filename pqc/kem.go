package pqc

import (
	"bytes"
	"context"

	"quantavirt/internal/qverr"
	keep "quantavirt/internal/secret"
)

// kemEngine is an implementation of a KEM.
type kemEngine struct {
	derive       func(seed, public, secret []byte) error
	public       func(secret []byte) ([]byte, error) // of the expanded form
	encapsulator func(public []byte) (encapsulateFunc, error)
	decapsulator func(secret []byte) (kemKey, error)
}

// encapsulateFunc makes a ciphertext and a shared key from 32 random bytes.
type encapsulateFunc func(ciphertext, shared, m []byte)

// kemKey is a secret key: what to wipe, and its use.
type kemKey struct {
	secret      any
	decapsulate func(shared, ciphertext []byte)
}

// kemPublic and kemSecret are the key types of circl's ML-KEM.
type kemPublic[T any] interface {
	*T
	Unpack([]byte) error
	Pack([]byte)
	EncapsulateTo(ciphertext, shared, seed []byte)
}

type kemSecret[T any] interface {
	*T
	Unpack([]byte) error
	Pack([]byte)
	DecapsulateTo(shared, ciphertext []byte)
}

// kemSeed is the size of d‖z of FIPS 203, algorithm 16.
const kemSeed = 64

// newMLKEM makes the engine of one parameter set of circl, whose public keys have
// publicSize bytes.
func newMLKEM[P, S any, PP kemPublic[P], SP kemSecret[S]](publicSize int, fromSeed func([]byte) (*P, *S)) kemEngine {
	return kemEngine{
		derive: func(seed, public, secret []byte) error {
			pk, sk := fromSeed(seed)
			PP(pk).Pack(public)
			SP(sk).Pack(secret)
			wipe(sk) // the public key shares with it, and is done with
			return nil
		},
		public: func(secret []byte) ([]byte, error) {
			sk := new(S)
			if err := SP(sk).Unpack(secret); err != nil { // checks the hash of the public key
				return nil, err
			}
			wipe(sk)
			end := len(secret) - 64 // H(ek) and z follow ek
			ek := secret[:end]
			return bytes.Clone(ek[end-publicSize:]), nil
		},
		encapsulator: func(public []byte) (encapsulateFunc, error) {
			pk := new(P)
			if err := PP(pk).Unpack(public); err != nil {
				return nil, err
			}
			return PP(pk).EncapsulateTo, nil
		},
		decapsulator: func(secret []byte) (kemKey, error) {
			sk := new(S)
			if len(secret) == kemSeed {
				_, sk = fromSeed(secret)
			} else if err := SP(sk).Unpack(secret); err != nil {
				return kemKey{}, err
			}
			return kemKey{sk, SP(sk).DecapsulateTo}, nil
		},
	}
}

// Encapsulator loads a public key.
func (s *software) Encapsulator(_ context.Context, a Algorithm, public []byte) (Encapsulator, error) {
	p, err := s.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.PQCEncaps, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	f, err := s.engines.kem[a].encapsulator(public)
	if err != nil {
		return nil, qverr.New(qverr.PQCEncaps, "%s public key: %w", a, err)
	}
	return &softEncapsulator{s, p, f}, nil
}

type softEncapsulator struct {
	s           *software
	p           Params
	encapsulate encapsulateFunc
}

func (e *softEncapsulator) Encapsulate(ctx context.Context, ciphertext, shared []byte) error {
	var m [32]byte
	defer clear(m[:])
	e.s.random(m[:])
	return e.encapsulateWith(ctx, m[:], ciphertext, shared)
}

// encapsulateWith takes m of FIPS 203, algorithm 20, for known-answer tests.
func (e *softEncapsulator) encapsulateWith(_ context.Context, m, ciphertext, shared []byte) error {
	if err := e.s.Healthy(); err != nil {
		return err
	}
	if err := e.p.checkEncapsulate(ciphertext, shared); err != nil {
		return err
	}
	keep.Do(func() { e.encapsulate(ciphertext, shared, m) })
	return nil
}

// Decapsulator loads a secret key.
func (s *software) Decapsulator(_ context.Context, a Algorithm, secret []byte) (Decapsulator, error) {
	p, err := s.use(FamilyKEM, a)
	if err != nil {
		return nil, err
	}
	if len(secret) != p.SecretKey && len(secret) != p.Seed {
		return nil, qverr.New(qverr.PQCDecaps, "%s secret key of %d bytes, want %d or a seed of %d", a, len(secret), p.SecretKey, p.Seed)
	}
	var k kemKey
	keep.Do(func() { k, err = s.engines.kem[a].decapsulator(secret) })
	if err != nil {
		return nil, qverr.New(qverr.PQCDecaps, "%s secret key: %w", a, err)
	}
	return &softDecapsulator{s, p, k}, nil
}

type softDecapsulator struct {
	s   *software
	p   Params
	key kemKey
}

func (d *softDecapsulator) Decapsulate(_ context.Context, shared, ciphertext []byte) error {
	if err := d.s.Healthy(); err != nil {
		return err
	}
	if d.key.decapsulate == nil {
		return destroyed(qverr.PQCDecaps)
	}
	if err := d.p.checkDecapsulate(shared, ciphertext); err != nil {
		return err
	}
	keep.Do(func() { d.key.decapsulate(shared, ciphertext) })
	return nil
}

func (d *softDecapsulator) Destroy() {
	wipe(d.key.secret)
	d.key = kemKey{}
}

func destroyed(code qverr.Code) error { return qverr.New(code, "the key is destroyed") }
