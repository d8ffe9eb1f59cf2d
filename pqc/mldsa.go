package pqc

import (
	"crypto"
	"crypto/sha3"
	"crypto/subtle"
	"errors"
	"io"
	_ "unsafe" // for go:linkname

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// ML-DSA.Sign_internal and Verify_internal (FIPS 204, algorithms 7 and 8) of
// circl. Its exported functions have neither the pre-hashed form nor randomness
// from elsewhere; these take M' as it is written to them. The linker refuses a
// version of circl that lacks them, and NIST's vectors one where they differ.

//go:linkname sign44 github.com/cloudflare/circl/sign/mldsa/mldsa44/internal.SignTo
func sign44(sk *mldsa44.PrivateKey, message func(io.Writer), rnd [32]byte, signature []byte)

//go:linkname sign65 github.com/cloudflare/circl/sign/mldsa/mldsa65/internal.SignTo
func sign65(sk *mldsa65.PrivateKey, message func(io.Writer), rnd [32]byte, signature []byte)

//go:linkname sign87 github.com/cloudflare/circl/sign/mldsa/mldsa87/internal.SignTo
func sign87(sk *mldsa87.PrivateKey, message func(io.Writer), rnd [32]byte, signature []byte)

//go:linkname verify44 github.com/cloudflare/circl/sign/mldsa/mldsa44/internal.Verify
func verify44(pk *mldsa44.PublicKey, message func(io.Writer), signature []byte) bool

//go:linkname verify65 github.com/cloudflare/circl/sign/mldsa/mldsa65/internal.Verify
func verify65(pk *mldsa65.PublicKey, message func(io.Writer), signature []byte) bool

//go:linkname verify87 github.com/cloudflare/circl/sign/mldsa/mldsa87/internal.Verify
func verify87(pk *mldsa87.PublicKey, message func(io.Writer), signature []byte) bool

// binary is what the key types of circl's ML-DSA have in common.
type binary[T any] interface {
	*T
	UnmarshalBinary([]byte) error
	Bytes() []byte
}

// private is a secret key that gives the public one.
type private[T any] interface {
	binary[T]
	Public() crypto.PublicKey
}

// newMLDSA makes the engine of one parameter set of circl. The secret vectors of
// a packed key have vectors polynomials with coefficients in [−eta, eta].
func newMLDSA[P, S any, PP binary[P], SP private[S]](
	vectors, eta int,
	fromSeed func(*[32]byte) (*P, *S),
	sign func(*S, func(io.Writer), [32]byte, []byte),
	verify func(*P, func(io.Writer), []byte) bool,
) signEngine {
	check := func(secret []byte) error {
		if !shortVectors(secret, vectors, eta) {
			return errRange
		}
		return nil
	}
	return signEngine{
		check: check,
		derive: func(seed, public, secret []byte) error {
			pk, sk := fromSeed((*[32]byte)(seed))
			packed := SP(sk).Bytes()
			copy(public, PP(pk).Bytes())
			copy(secret, packed)
			clear(packed)
			wipe(sk) // the public key shares its matrix with it, and is done with
			return nil
		},
		public: func(secret []byte) ([]byte, error) {
			sk := new(S)
			if err := SP(sk).UnmarshalBinary(secret); err != nil {
				return nil, err
			}
			defer wipe(sk)
			public := PP(any(SP(sk).Public()).(*P)).Bytes()
			var tr [64]byte
			h := sha3.NewSHAKE256()
			_, _ = h.Write(public) // never fails
			_, _ = h.Read(tr[:])
			if err := check(secret); err != nil {
				return nil, err
			}
			if subtle.ConstantTimeCompare(tr[:], secret[64:128]) != 1 {
				return nil, errHash
			}
			return public, nil
		},
		signer: func(secret []byte) (signKey, error) {
			sk := new(S)
			if len(secret) == 32 {
				_, sk = fromSeed((*[32]byte)(secret))
			} else if err := SP(sk).UnmarshalBinary(secret); err != nil {
				return signKey{}, err
			} else if err := check(secret); err != nil {
				return signKey{}, err
			}
			return signKey{secret: sk, sign: func(signature []byte, m encoded, rnd []byte) error {
				var r [32]byte // all zero is the deterministic variant
				copy(r[:], rnd)
				sign(sk, m.write, r, signature)
				return nil
			}}, nil
		},
		verifier: func(public []byte) (verifyFunc, error) {
			pk := new(P)
			if err := PP(pk).UnmarshalBinary(public); err != nil {
				return nil, err
			}
			return func(signature []byte, m encoded) bool { return verify(pk, m.write, signature) }, nil
		},
		random: 32,
	}
}

var (
	errRange = errors.New("a coefficient of the secret vectors is out of range")
	errHash  = errors.New("the hash of the public key in it is another")
)

// shortVectors is the check that skDecode (FIPS 204, algorithm 25) leaves to
// its caller and circl does not make: every coefficient of s1 and s2, which
// follow rho, K and tr, is packed as a number from 0 to 2·eta. It looks at all
// of them, in constant time.
func shortVectors(secret []byte, vectors, eta int) bool {
	bits := 3
	if eta == 4 {
		bits = 4
	}
	packed := secret[32+32+64:][:vectors*256*bits/8]
	var wrong, buffer uint32
	have := 0
	for _, b := range packed {
		buffer |= uint32(b) << have
		for have += 8; have >= bits; have -= bits {
			coefficient := buffer & (1<<bits - 1)
			wrong |= uint32(2*eta) - coefficient // wraps below 0
			buffer >>= bits
		}
	}
	return wrong>>31 == 0
}
