// Package envelope carries a secret to who has the secret half of an ML-KEM-1024
// key (FIPS 203): what is between, such as a daemon's buffers, sees ciphertext only.
//
// An envelope is one byte of version, the KEM's ciphertext and the secret under AES-256-GCM.
// The key comes from HKDF over SHA3-256 (RFC 5869) of the shared key; purpose, public key and
// KEM ciphertext are its info, so that an envelope for one purpose opens for no other.
// Who made it is not proven: the connection that it comes over does that.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/sha3"
	"slices"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
)

// Purpose says what an envelope carries.
type Purpose string

// Purposes.
const (
	Import     Purpose = "import"     // a private key, to the node
	Export     Purpose = "export"     // a private key, from the node
	Shared     Purpose = "shared"     // a shared key that the node recovered
	Passphrase Purpose = "passphrase" // to the node
)

const version = 1

// Sizes in bytes.
const (
	PublicKeySize = mlkem.EncapsulationKeySize1024
	Overhead      = 1 + mlkem.CiphertextSize1024 + 16
	// MaxSecret bounds what is carried: the largest private key is below 10 KiB.
	MaxSecret = 64 << 10
)

// Recipient is who opens envelopes. Its key lives in the process only.
type Recipient struct{ key *mlkem.DecapsulationKey1024 }

// NewRecipient makes a key for one sitting.
func NewRecipient() (*Recipient, error) {
	key, err := mlkem.GenerateKey1024()
	if err != nil {
		return nil, qverr.New(qverr.PQCKeygen, "make a key for envelopes: %w", err)
	}
	return &Recipient{key}, nil
}

// Public is the key to seal for, PublicKeySize bytes.
func (r *Recipient) Public() []byte { return r.key.EncapsulationKey().Bytes() }

// Seal makes an envelope of a secret. PQC_ERR_ENCAPS: public is no ML-KEM-1024 key.
func Seal(public []byte, purpose Purpose, plain []byte) ([]byte, error) {
	if len(plain) == 0 || len(plain) > MaxSecret {
		return nil, qverr.New(qverr.Inval, "an envelope for %d bytes, want 1 to %d", len(plain), MaxSecret)
	}
	to, err := mlkem.NewEncapsulationKey1024(public)
	if err != nil {
		return nil, qverr.New(qverr.PQCEncaps, "the key to seal for: %w", err)
	}
	out := make([]byte, 1+mlkem.CiphertextSize1024, Overhead+len(plain))
	secret.Do(func() {
		shared, ciphertext := to.Encapsulate()
		out[0] = version
		copy(out[1:], ciphertext)
		var aead cipher.AEAD
		if aead, err = newAEAD(shared, purpose, public, ciphertext); err == nil {
			out = aead.Seal(out, make([]byte, aead.NonceSize()), plain, out[:1])
		}
		clear(shared)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Open returns the secret, which the caller wipes. PQC_ERR_DECRYPT: the envelope is
// damaged, for another key or for another purpose.
func (r *Recipient) Open(purpose Purpose, envelope []byte) (*secret.Buffer, error) {
	n := len(envelope) - Overhead
	if n <= 0 || n > MaxSecret || envelope[0] != version {
		return nil, qverr.New(qverr.PQCDecrypt, "%d bytes are no envelope of version %d", len(envelope), version)
	}
	out, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	secret.Do(func() { err = r.open(out.Bytes(), purpose, envelope) })
	if err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

func (r *Recipient) open(out []byte, purpose Purpose, envelope []byte) error {
	ciphertext := envelope[1 : 1+mlkem.CiphertextSize1024]
	shared, err := r.key.Decapsulate(ciphertext)
	if err != nil {
		return qverr.New(qverr.PQCDecaps, "open an envelope: %w", err)
	}
	defer clear(shared)
	aead, err := newAEAD(shared, purpose, r.Public(), ciphertext)
	if err != nil {
		return err
	}
	if _, err := aead.Open(out[:0], make([]byte, aead.NonceSize()), envelope[1+len(ciphertext):], envelope[:1]); err != nil {
		return qverr.New(qverr.PQCDecrypt, "the envelope is damaged, or for another key or purpose").
			WithHint("fetch the node's key again: it changes with each start of the daemon")
	}
	return nil
}

// newAEAD is for one envelope alone, which is why its nonce can be zero.
func newAEAD(shared []byte, purpose Purpose, public, ciphertext []byte) (cipher.AEAD, error) {
	sum := sha3.Sum256(slices.Concat(public, ciphertext))
	key, err := hkdf.Key(sha3.New256, shared, nil, "quantavirt envelope 1 "+string(purpose)+"\x00"+string(sum[:]), 32)
	if err != nil {
		return nil, qverr.New(qverr.PQCKDF, "key of an envelope: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, qverr.New(qverr.PQCEncrypt, "key of an envelope: %w", err)
	}
	return cipher.NewGCM(block)
}
