package image

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/u-root/mkuimage/cpio"

	"quantavirt/internal/bundle"
)

// updateKeysPath is where an image has the public keys that it trusts for
// updates.
const updateKeysPath = "etc/quantavirt/update-keys"

// UpdateKey is an ML-DSA-87 key that signs update bundles: NAME.key (PKCS#8, PEM,
// for its owner alone) and NAME.pub (FIPS 204 encoding) in the folder of the
// builder's keys. A key whose private half is elsewhere has only a .pub file.
type UpdateKey struct {
	Name    string // update-1
	Public  []byte
	Private *mldsa87.PrivateKey // nil: not here
}

// ID is the key's id in bundles.
func (k UpdateKey) ID() (bundle.KeyID, error) { return bundle.ParseKey(k.Public) }

// UpdateKeys reads the update keys of a folder, by name. If it has none, one is
// made: whoever builds an image can update it.
func UpdateKeys(dir string) ([]UpdateKey, error) {
	if dir == "" {
		return nil, fmt.Errorf("image: no folder for the builder's keys is named")
	}
	files, err := filepath.Glob(filepath.Join(dir, "update-*.pub"))
	if err != nil {
		return nil, fmt.Errorf("image: update keys: %w", err)
	}
	if len(files) == 0 {
		key, err := NewUpdateKey(dir)
		return []UpdateKey{key}, err
	}
	slices.Sort(files)
	var keys []UpdateKey
	for _, file := range files {
		key, err := readUpdateKey(strings.TrimSuffix(file, ".pub"))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readUpdateKey(path string) (UpdateKey, error) {
	key := UpdateKey{Name: filepath.Base(path)}
	var err error
	if key.Public, err = os.ReadFile(path + ".pub"); err != nil {
		return key, fmt.Errorf("image: update key: %w", err)
	}
	if len(key.Public) != mldsa87.PublicKeySize {
		return key, fmt.Errorf("image: %s.pub has %d bytes, not the %d of an ML-DSA-87 key", path, len(key.Public), mldsa87.PublicKeySize)
	}
	text, err := os.ReadFile(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		return key, nil
	}
	if err != nil {
		return key, fmt.Errorf("image: update key: %w", err)
	}
	if key.Private, err = parsePrivate(text); err != nil {
		return key, fmt.Errorf("image: %s.key: %w", path, err)
	}
	if !bytes.Equal(key.Private.Public().(*mldsa87.PublicKey).Bytes(), key.Public) {
		return key, fmt.Errorf("image: %s.key and %s.pub do not belong together", path, path)
	}
	return key, nil
}

// NewUpdateKey makes a further update key, with the next free number. The
// private file is written first: a public key never stands alone by accident.
func NewUpdateKey(dir string) (UpdateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return UpdateKey{}, fmt.Errorf("image: update keys: %w", err)
	}
	var seed [mldsa87.SeedSize]byte
	_, _ = rand.Read(seed[:]) // never fails
	public, private := mldsa87.NewKeyFromSeed(&seed)
	text, err := privateText(seed)
	if err != nil {
		return UpdateKey{}, fmt.Errorf("image: update key: %w", err)
	}
	for n := 1; ; n++ {
		key := UpdateKey{Name: fmt.Sprintf("update-%d", n), Public: public.Bytes(), Private: private}
		path := filepath.Join(dir, key.Name)
		if _, err := os.Lstat(path + ".pub"); err == nil {
			continue
		}
		err := writeNew(path+".key", text, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = writeNew(path+".pub", key.Public, 0o644)
		}
		if err != nil {
			return UpdateKey{}, fmt.Errorf("image: update key: %w", err)
		}
		return key, nil
	}
}

// privateKey is the OneAsymmetricKey of PKCS #8 (RFC 5958) with the seed of an
// ML-DSA key as RFC 9881, section 6, has it: [0] IMPLICIT OCTET STRING.
type privateKey struct {
	Version   int
	Algorithm struct{ OID asn1.ObjectIdentifier }
	Key       []byte
}

// mldsa87OID is id-ml-dsa-87 (RFC 9881, section 2).
var mldsa87OID = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 19}

const (
	seedTag = 0x80
	pemType = "PRIVATE KEY"
)

func privateText(seed [mldsa87.SeedSize]byte) ([]byte, error) {
	key := privateKey{Key: append([]byte{seedTag, byte(len(seed))}, seed[:]...)}
	key.Algorithm.OID = mldsa87OID
	der, err := asn1.Marshal(key)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), err
}

func parsePrivate(text []byte) (*mldsa87.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("no PEM block %q", pemType)
	}
	var key privateKey
	if rest, err := asn1.Unmarshal(block.Bytes, &key); err != nil {
		return nil, fmt.Errorf("not a PKCS #8 key: %w", err)
	} else if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the key", len(rest))
	}
	seed, ok := bytes.CutPrefix(key.Key, []byte{seedTag, mldsa87.SeedSize})
	if !key.Algorithm.OID.Equal(mldsa87OID) || !ok || len(seed) != mldsa87.SeedSize {
		return nil, fmt.Errorf("algorithm %s: want the seed of an ML-DSA-87 key", key.Algorithm.OID)
	}
	_, private := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
	return private, nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// updateKeyRecords puts the public keys into the archive.
func updateKeyRecords(keys []UpdateKey) []cpio.Record {
	records := []cpio.Record{cpio.Directory(updateKeysPath, 0o755)}
	for _, key := range keys {
		records = append(records, cpio.StaticFile(updateKeysPath+"/"+key.Name+".pub", string(key.Public), 0o644))
	}
	return records
}
