package pqc

import (
	"context"
	"hash"
	"io"
)

// Provider serves operations with one implementation. A Service is one too:
// the one that the policy picks.
//
// Secret keys come in the expanded form of FIPS 203 and 204 or as the seed that
// they are made from; the length tells which. Both forms of SLH-DSA are those
// of FIPS 205: SK.seed‖SK.prf‖PK.seed‖PK.root, and the first three of them.
//
// Errors: PQCAlgorithm for an algorithm of another family, Unsupported for one
// that the provider does not have, PQCSelfTest after a self-test has failed,
// from then on. A key, ciphertext or buffer of a wrong size gets the code of
// the operation. What is wrong with a key may show only when it is used.
type Provider interface {
	// Name is "software" or "quac100".
	Name() string
	// Healthy is nil while calls may be sent here.
	Healthy() error
	// Supports tells whether the provider has an algorithm.
	Supports(a Algorithm) bool

	// Random fills p. PQCQRNG: the source is empty or unhealthy.
	Random(ctx context.Context, p []byte) error

	// GenerateKey makes a key pair of a KEM or a signature scheme in the
	// caller's buffers, which have the sizes of Params: from a seed of
	// Params.Seed bytes, or from fresh randomness if seed is nil. The pair is
	// tested before it is handed out. PQCKeygen: it cannot be made.
	GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error

	// PublicKey is the public key of a secret key in either form. PQCKeygen: the
	// secret key is none, or contradicts itself.
	PublicKey(ctx context.Context, a Algorithm, secret []byte) ([]byte, error)

	// Encapsulator loads a public key. PQCEncaps: it fails the check of
	// FIPS 203, section 7.2.
	Encapsulator(ctx context.Context, a Algorithm, public []byte) (Encapsulator, error)
	// Decapsulator loads a secret key, whose bytes the caller may wipe then.
	// PQCDecaps: it fails the check of FIPS 203, section 7.3.
	Decapsulator(ctx context.Context, a Algorithm, secret []byte) (Decapsulator, error)
	// Signer loads a secret key, whose bytes the caller may wipe then.
	Signer(ctx context.Context, a Algorithm, secret []byte) (Signer, error)
	// Verifier loads a public key.
	Verifier(ctx context.Context, a Algorithm, public []byte) (Verifier, error)
	// AEAD loads a key, whose bytes the caller may wipe then.
	AEAD(ctx context.Context, a Algorithm, key []byte) (AEAD, error)

	// Hash is a fresh hash.
	Hash(a Algorithm) (hash.Hash, error)
	// XOF is a fresh extendable-output function.
	XOF(a Algorithm) (XOF, error)
	// KDF fills key from a secret. PQCKDF: more than 255 hash values are asked
	// for, or none.
	KDF(a Algorithm, key, secret, salt, info []byte) error
}

// Keys may be used by many callers at once, except during and after Destroy.

// Destroyer is a key that holds secrets.
type Destroyer interface {
	// Destroy wipes the key as far as its implementation allows; it cannot be
	// used any more.
	Destroy()
}

// Encapsulator is the public key of a KEM.
type Encapsulator interface {
	// Encapsulate makes a shared key of Params.Shared bytes and its ciphertext
	// of Params.Output bytes in the caller's buffers.
	Encapsulate(ctx context.Context, ciphertext, shared []byte) error
}

// Decapsulator is the secret key of a KEM.
type Decapsulator interface {
	// Decapsulate recovers the shared key into the caller's buffer. A wrong
	// ciphertext of the right length is no error but gives another shared key
	// (implicit rejection). PQCDecaps: a ciphertext of the wrong length.
	Decapsulate(ctx context.Context, shared, ciphertext []byte) error
	Destroyer
}

// SignOptions say how a message is signed. Nil is the zero value: a hedged
// signature over the message itself, with an empty context.
type SignOptions struct {
	// Context is of 0 to 255 bytes, and the same for signer and verifier.
	Context []byte
	// Hash makes the pre-hashed form: HashML-DSA or HashSLH-DSA. It has to be
	// as strong as the key; 0 is the pure form, which is the one to prefer.
	Hash Algorithm
	// Deterministic takes no fresh randomness. The verifier does not see it.
	Deterministic bool
}

// Signer is the secret key of a signature scheme.
type Signer interface {
	// Sign fills signature, which has Params.Output bytes. PQCSign: it cannot
	// be made. PQCParamSet: options that the standard does not allow.
	Sign(ctx context.Context, signature, message []byte, o *SignOptions) error
	Destroyer
}

// Verifier is the public key of a signature scheme.
type Verifier interface {
	// Verify is nil for a signature of message. PQCVerify: it is none.
	Verify(ctx context.Context, message, signature []byte, o *SignOptions) error
}

// AEAD is the key of an authenticated cipher. A nonce has Params.Nonce bytes
// and must not be used twice with a key.
type AEAD interface {
	// Seal appends the ciphertext and its tag to dst. plaintext[:0] as dst
	// encrypts in place.
	Seal(ctx context.Context, dst, nonce, plaintext, additional []byte) ([]byte, error)
	// Open appends the plaintext to dst. PQCDecrypt: the tag does not belong to
	// the rest; then no plaintext is written.
	Open(ctx context.Context, dst, nonce, ciphertext, additional []byte) ([]byte, error)
	Destroyer
}

// XOF is an extendable-output function: what is read depends on all that was
// written before the first Read.
type XOF interface {
	io.Writer
	io.Reader
	Reset()
}
