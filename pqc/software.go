package pqc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"

	"quantavirt/internal/qverr"
)

// software is the provider without a card. circl's ML-KEM is the fastest of
// the maintained implementations: on one core 16 µs to encapsulate and 26 to
// decapsulate, where crypto/mlkem takes 48 and 66; the benchmark of this
// package repeats the comparison.
type software struct{}

// newSoftware runs the known-answer test first: PQCSelfTest if it fails.
func newSoftware() (Provider, error) {
	if err := mlkem768KnownAnswer(); err != nil {
		return nil, err
	}
	return software{}, nil
}

func (software) Name() string   { return "software" }
func (software) Healthy() error { return nil }
func (software) MLKEM768() KEM  { return softwareMLKEM768{} }

func (software) Random(_ context.Context, p []byte) error {
	_, _ = rand.Read(p) // never fails (crypto/rand)
	return nil
}

type softwareMLKEM768 struct{}

func (softwareMLKEM768) GenerateKey(context.Context) (public, secret []byte, err error) {
	pk, sk, err := mlkem768.GenerateKeyPair(rand.Reader)
	if err != nil {
		return nil, nil, qverr.New(qverr.PQCKeygen, "generate an ML-KEM-768 key: %w", err)
	}
	public, secret = make([]byte, MLKEM768PublicKeySize), make([]byte, MLKEM768SecretKeySize)
	pk.Pack(public)
	sk.Pack(secret)
	return public, secret, nil
}

func (softwareMLKEM768) Encapsulate(_ context.Context, public []byte) (ciphertext, shared []byte, err error) {
	var pk mlkem768.PublicKey
	if len(public) != MLKEM768PublicKeySize {
		return nil, nil, qverr.New(qverr.PQCEncaps, "ML-KEM-768 public key of %d bytes, want %d", len(public), MLKEM768PublicKeySize)
	}
	if err := pk.Unpack(public); err != nil {
		return nil, nil, qverr.New(qverr.PQCEncaps, "ML-KEM-768 public key: %w", err)
	}
	ciphertext, shared = make([]byte, MLKEM768CiphertextSize), make([]byte, MLKEM768SharedKeySize)
	pk.EncapsulateTo(ciphertext, shared, nil)
	return ciphertext, shared, nil
}

func (softwareMLKEM768) Decapsulate(_ context.Context, secret, ciphertext []byte) ([]byte, error) {
	if len(secret) != MLKEM768SecretKeySize || len(ciphertext) != MLKEM768CiphertextSize {
		return nil, qverr.New(qverr.PQCDecaps, "ML-KEM-768 secret key of %d and ciphertext of %d bytes, want %d and %d",
			len(secret), len(ciphertext), MLKEM768SecretKeySize, MLKEM768CiphertextSize)
	}
	var sk mlkem768.PrivateKey
	if err := sk.Unpack(secret); err != nil {
		return nil, qverr.New(qverr.PQCDecaps, "ML-KEM-768 secret key: %w", err)
	}
	shared := make([]byte, MLKEM768SharedKeySize)
	sk.DecapsulateTo(shared, ciphertext)
	return shared, nil
}

// Known answer of ML-KEM-768 for the seed 00…3f and the encapsulation
// randomness 40…5f: SHA-256 over public key, ciphertext and shared key. A test
// computes the public key with crypto/mlkem, an independent implementation,
// and decapsulates there.
const mlkem768Answer = "ecfb3b150a0cdc45e870aa1d5306d29c6454e6ce6406f6abfc884ff677a7a7e6"

func mlkem768KnownAnswer() error {
	seed := make([]byte, mlkem768.KeySeedSize+mlkem768.EncapsulationSeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	pk, sk := mlkem768.NewKeyFromSeed(seed[:mlkem768.KeySeedSize])
	public := make([]byte, MLKEM768PublicKeySize)
	pk.Pack(public)
	ciphertext, shared, back := make([]byte, MLKEM768CiphertextSize), make([]byte, MLKEM768SharedKeySize), make([]byte, MLKEM768SharedKeySize)
	pk.EncapsulateTo(ciphertext, shared, seed[mlkem768.KeySeedSize:])
	sk.DecapsulateTo(back, ciphertext)
	sum := sha256.Sum256(bytes.Join([][]byte{public, ciphertext, shared}, nil))
	if hex.EncodeToString(sum[:]) != mlkem768Answer || !bytes.Equal(shared, back) {
		return qverr.New(qverr.PQCSelfTest, "ML-KEM-768 in software gives a wrong known answer")
	}
	return nil
}
