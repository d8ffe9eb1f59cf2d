package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha3"
	"encoding/json"

	"golang.org/x/crypto/argon2"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
)

const masterSize = 32

// What can open a keystore.
const (
	ByTPM        = "tpm"
	ByCard       = "card"
	ByPassphrase = "passphrase" // and nothing else
)

// Sealer keeps the master key by hardware: TPM or CardSealer.
type Sealer interface {
	// Name is that of the hardware: ByTPM or ByCard.
	Name() string
	// Seal returns what Unseal makes the master key of, which needs no protection.
	Seal(master []byte) (json.RawMessage, error)
	// Unseal returns the master key, which the caller wipes. QV_ERR_PERM: the hardware
	// keeps it, as the boot is another or the hardware is.
	Unseal(data json.RawMessage) ([]byte, error)
}

// passphrase is the master key under a key from a passphrase.
type passphrase struct {
	Salt      []byte `json:"salt"`
	Time      uint32 `json:"time"` // passes
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Wrapped   []byte `json:"wrapped"` // AES-256-GCM, with a nonce of zeroes: the key is used once
}

// Costs of argon2id: the second choice of RFC 9106, section 4, which small machines can bear too.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
)

// MinPassphrase is in bytes, as for backups.
const MinPassphrase = 12

// check bounds what a file may ask of the machine before it is known to be ours.
func (p *passphrase) check() error {
	if len(p.Salt) != 16 || len(p.Wrapped) != masterSize+tagSize || p.Time < 1 || p.Time > 16 ||
		p.MemoryKiB < 8 || p.MemoryKiB > 256<<10 || p.Threads < 1 || p.Threads > 16 {
		return refused("the keystore's file is damaged: its passphrase's parameters are out of bounds")
	}
	return nil
}

// wrap encrypts the master key under a passphrase.
func wrap(master, text []byte) (*passphrase, error) {
	if len(text) < MinPassphrase {
		return nil, qverr.New(qverr.Inval, "a passphrase needs %d bytes at least", MinPassphrase)
	}
	p := &passphrase{Salt: make([]byte, 16), Time: argonTime, MemoryKiB: argonMemory, Threads: argonThreads,
		Wrapped: make([]byte, 0, masterSize+tagSize)}
	_, _ = rand.Read(p.Salt) // never fails
	var err error
	secret.Do(func() {
		var aead cipher.AEAD
		if aead, err = p.aead(text); err == nil {
			p.Wrapped = aead.Seal(p.Wrapped, make([]byte, aead.NonceSize()), master, nil)
		}
	})
	return p, err
}

// unwrap writes the master key. QV_ERR_PERM: the passphrase is another.
func (p *passphrase) unwrap(master, text []byte) error {
	var err error
	secret.Do(func() {
		var aead cipher.AEAD
		if aead, err = p.aead(text); err != nil {
			return
		}
		if _, openErr := aead.Open(master[:0], make([]byte, aead.NonceSize()), p.Wrapped, nil); openErr != nil {
			err = qverr.New(qverr.Perm, "the passphrase does not open the keystore")
		}
	})
	return err
}

func (p *passphrase) aead(text []byte) (cipher.AEAD, error) {
	key := argon2.IDKey(text, p.Salt, p.Time, p.MemoryKiB, p.Threads, 32)
	defer clear(key)
	return newAEAD(key)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, qverr.New(qverr.PQCKDF, "the keystore's key: %w", err)
	}
	return cipher.NewGCM(block)
}

// bodyAEAD is the cipher of one writing of the keys: with its own salt its key is
// used once, so that its nonce can be zero.
func bodyAEAD(master, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha3.New256, master, salt, "quantavirt keystore 1", 32)
	if err != nil {
		return nil, qverr.New(qverr.PQCKDF, "the keystore's key: %w", err)
	}
	defer clear(key)
	return newAEAD(key)
}

// seal encrypts the keys behind what is in clear, and completes the file.
func seal(master, salt, additional, plain []byte) ([]byte, error) {
	out := make([]byte, len(additional), len(additional)+len(plain)+tagSize+sumSize)
	copy(out, additional)
	var err error
	secret.Do(func() {
		var aead cipher.AEAD
		if aead, err = bodyAEAD(master, salt); err == nil {
			out = aead.Seal(out, make([]byte, aead.NonceSize()), plain, additional)
		}
	})
	sum := sha3.Sum256(out)
	return append(out, sum[:]...), err
}

// open decrypts the keys; the caller wipes them.
func (f file) open(master []byte) (*secret.Buffer, error) {
	plain, err := secret.New(len(f.sealed) - tagSize)
	if err != nil {
		return nil, err
	}
	secret.Do(func() {
		var aead cipher.AEAD
		if aead, err = bodyAEAD(master, f.salt); err != nil {
			return
		}
		if _, openErr := aead.Open(plain.Bytes()[:0], make([]byte, aead.NonceSize()), f.sealed, f.additional); openErr != nil {
			err = refused("the keystore's file is damaged, or was changed by somebody else")
		}
	})
	if err != nil {
		plain.Wipe()
		return nil, err
	}
	return plain, nil
}
