package pqc

import (
	"bytes"
	"crypto/subtle"
	"errors"

	"github.com/cloudflare/circl/sign/slhdsa"
	"github.com/cloudflare/circl/xof"
)

// newSLHDSA makes the engine of one parameter set of circl's SLH-DSA (FIPS 205);
// n is its security parameter in bytes.
func newSLHDSA(id slhdsa.ID, n int) signEngine {
	load := func(secret []byte) (*slhdsa.PrivateKey, error) {
		if len(secret) == 3*n {
			_, sk, err := slhdsa.GenerateKey(bytes.NewReader(secret), id)
			return &sk, err
		}
		sk := &slhdsa.PrivateKey{ID: id}
		return sk, sk.UnmarshalBinary(secret)
	}
	derive := func(seed, public, secret []byte) error {
		sk, err := load(seed)
		if err != nil {
			return err
		}
		defer wipe(sk)
		packed, err := sk.MarshalBinary()
		if err != nil {
			return err
		}
		copy(secret, packed)
		copy(public, packed[2*n:])
		clear(packed)
		return nil
	}
	return signEngine{
		check:  func([]byte) error { return nil },
		derive: derive,
		public: func(secret []byte) ([]byte, error) {
			public, again := make([]byte, 2*n), make([]byte, 4*n)
			defer clear(again)
			if err := derive(secret[:3*n], public, again); err != nil {
				return nil, err
			}
			if subtle.ConstantTimeCompare(again, secret) != 1 {
				return nil, errRoot
			}
			return public, nil
		},
		signer: func(secret []byte) (signKey, error) {
			sk, err := load(secret)
			if err != nil {
				return signKey{}, err
			}
			return signKey{secret: sk, sign: func(signature []byte, m encoded, rnd []byte) error {
				message, err := m.slh()
				if err != nil {
					return err
				}
				var out []byte
				if rnd == nil {
					out, err = slhdsa.SignDeterministic(sk, message, m.context)
				} else {
					out, err = slhdsa.SignRandomized(sk, bytes.NewReader(rnd), message, m.context)
				}
				copy(signature, out)
				return err
			}}, nil
		},
		verifier: func(public []byte) (verifyFunc, error) {
			pk := &slhdsa.PublicKey{ID: id}
			if err := pk.UnmarshalBinary(public); err != nil {
				return nil, err
			}
			return func(signature []byte, m encoded) bool {
				message, err := m.slh()
				return err == nil && slhdsa.Verify(pk, message, signature, m.context)
			}, nil
		},
		random: n,
	}
}

var errRoot = errors.New("the root of the tree in it is another")

// slh is the message as circl wants it.
func (m encoded) slh() (*slhdsa.Message, error) {
	if m.hash == 0 {
		return slhdsa.NewMessage(m.message), nil
	}
	var (
		ph  *slhdsa.PreHash
		err error
	)
	switch m.hash {
	case SHAKE128:
		ph, err = slhdsa.NewPreHashWithXof(xof.SHAKE128)
	case SHAKE256:
		ph, err = slhdsa.NewPreHashWithXof(xof.SHAKE256)
	default:
		ph, err = slhdsa.NewPreHashWithHash(hashes[m.hash].id)
	}
	if err != nil {
		return nil, err
	}
	if _, err := ph.Write(m.message); err != nil {
		return nil, err
	}
	return ph.BuildMessage()
}
