package attest

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// identityFile, in the keystore, holds the seed of the node's identity.
const identityFile = "identity.key"

// Identity is the node's long-term signing key, ML-DSA-87 (FIPS 204).
type Identity struct{ key *mldsa87.PrivateKey }

// OpenIdentity reads the identity from a keystore, or makes it at the first
// boot. PQC_ERR_KEYSTORE: what is there cannot be used.
func OpenIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, identityFile)
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, mldsa87.SeedSize)
		_, _ = rand.Read(seed) // never fails
		err = write(dir, path, seed)
	}
	if err != nil {
		return nil, qverr.New(qverr.PQCKeystore, "the node's identity: %w", err)
	}
	if len(seed) != mldsa87.SeedSize {
		return nil, qverr.New(qverr.PQCKeystore, "the node's identity %s has %d bytes, not %d", path, len(seed), mldsa87.SeedSize)
	}
	_, key := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
	return &Identity{key}, nil
}

// write leaves the whole seed or none, readable by its owner alone.
func write(dir, path string, seed []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, identityFile+"-") // has mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(seed)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Public is the public key.
func (id *Identity) Public() []byte { return id.key.Public().(*mldsa87.PublicKey).Bytes() }

func (id *Identity) sign(statement []byte, context string) ([]byte, error) {
	signature := make([]byte, mldsa87.SignatureSize)
	if err := mldsa87.SignTo(id.key, statement, []byte(context), true, signature); err != nil {
		return nil, qverr.New(qverr.PQCSign, "sign by the node's identity: %w", err)
	}
	return signature, nil
}
