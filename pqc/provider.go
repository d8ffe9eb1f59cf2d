package pqc

import "context"

// Sizes of ML-KEM-768 in bytes (FIPS 203, table 3).
const (
	MLKEM768PublicKeySize  = 1184
	MLKEM768SecretKeySize  = 2400 // expanded form
	MLKEM768CiphertextSize = 1088
	MLKEM768SharedKeySize  = 32
)

// KEM is a key encapsulation mechanism. Keys and ciphertexts are in the
// encodings of FIPS 203; decapsulating a wrong ciphertext of the right length
// is no error but gives another shared key (implicit rejection).
type KEM interface {
	// GenerateKey makes a key pair from fresh randomness.
	GenerateKey(ctx context.Context) (public, secret []byte, err error)
	// Encapsulate makes a shared key and its ciphertext for a public key.
	// PQCEncaps for a key that fails the input checks of FIPS 203.
	Encapsulate(ctx context.Context, public []byte) (ciphertext, shared []byte, err error)
	// Decapsulate recovers the shared key. PQCDecaps for a secret key or a
	// ciphertext that fails the input checks.
	Decapsulate(ctx context.Context, secret, ciphertext []byte) (shared []byte, err error)
}

// Provider serves operations with one implementation.
type Provider interface {
	// Name is "software" or "quac100".
	Name() string
	// Healthy is nil while calls may be sent here.
	Healthy() error
	// Random fills p.
	Random(ctx context.Context, p []byte) error
	// MLKEM768 is the mechanism of that name.
	MLKEM768() KEM
}
