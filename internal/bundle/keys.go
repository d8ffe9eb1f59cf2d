package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// context separates these signatures from all others made with the same key
// (FIPS 204, section 5.2).
const context = "quantavirt-update-1"

// KeyID is the SHA-256 of a public key.
type KeyID [sha256.Size]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID reads a key id in hexadecimal.
func ParseKeyID(s string) (KeyID, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(KeyID{}) {
		return KeyID{}, qverr.New(qverr.Inval, "%.80q is no id of an update key: %d hexadecimal digits", s, 2*len(KeyID{}))
	}
	return KeyID(raw), nil
}

// ParseKey checks a public key and returns its id.
func ParseKey(raw []byte) (KeyID, error) {
	if len(raw) != mldsa87.PublicKeySize {
		return KeyID{}, qverr.New(qverr.Inval, "an update key of %d bytes: an ML-DSA-87 public key has %d", len(raw), mldsa87.PublicKeySize)
	}
	return sha256.Sum256(raw), nil
}

// Keys are trusted public keys by their id.
type Keys map[KeyID][]byte

// Add trusts a public key.
func (k Keys) Add(raw []byte) error {
	id, err := ParseKey(raw)
	if err == nil {
		k[id] = slices.Clone(raw)
	}
	return err
}

// LoadKeys reads all *.pub files of a directory. One that is not there holds no
// keys.
func LoadKeys(dir string) (Keys, error) {
	keys := make(Keys)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "update keys: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".pub") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, qverr.New(qverr.IO, "update key: %w", err)
		}
		if err := keys.Add(raw); err != nil {
			return nil, qverr.New(qverr.CodeOf(err), "%s: %w", e.Name(), err)
		}
	}
	return keys, nil
}

// Apply returns the keys after a change. QV_ERR_INVAL: nothing would be trusted
// any more.
func (k Keys) Apply(c KeyChange) (Keys, error) {
	out := make(Keys, len(k)+len(c.Add))
	for id, raw := range k {
		out[id] = raw
	}
	for _, raw := range c.Add {
		if err := out.Add(raw); err != nil {
			return nil, err
		}
	}
	for _, s := range c.Remove {
		id, err := ParseKeyID(s)
		if err != nil {
			return nil, err
		}
		delete(out, id)
	}
	if len(out) == 0 {
		return nil, qverr.New(qverr.Inval, "update bundle: it would leave no update key that is trusted")
	}
	return out, nil
}

// verify checks one signature by a trusted key.
func (k Keys) verify(id KeyID, manifest, signature []byte) bool {
	var public mldsa87.PublicKey
	if public.UnmarshalBinary(k[id]) != nil {
		return false
	}
	return mldsa87.Verify(&public, manifest, []byte(context), signature)
}
