package luks2

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"hash"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"golang.org/x/crypto/xts"

	"quantavirt/internal/qverr"
)

// maxSlots is how many key slots and tokens there may be (LUKS2_KEYSLOTS_MAX).
const maxSlots = 32

// areaSector is what an area of key material is encrypted by, in bytes.
const areaSector = 512

// Format makes a volume with a random key that each of the passphrases opens,
// slot by slot. What was on the device cannot be read any more after it.
func Format(d Device, size int64, label string, passphrases ...[]byte) (*Volume, []byte, error) {
	if size < MinSize || size%sectorSize != 0 || len(passphrases) == 0 || len(passphrases) > maxSlots || len(label) >= labelSize {
		return nil, nil, qverr.New(qverr.Inval, "an encrypted volume of %d bytes with %d keys: at least %d bytes in units of %d, 1 to %d keys",
			size, len(passphrases), MinSize, sectorSize, maxSlots)
	}
	key := random(keySize)
	v := &Volume{Label: label, UUID: uuid.NewString(), size: headerSize, fields: make(map[string]json.RawMessage)}
	m := metadata{
		Keyslots: make(map[string]keyslot), Tokens: map[string]json.RawMessage{},
		Segments: map[string]segment{"0": {"crypt", dataOffset, "dynamic", "0", cipher, sectorSize}},
		Config:   config{JSONSize: headerSize - binarySize, KeyslotsSize: dataOffset - 2*headerSize},
	}
	sum := digest{Type: "pbkdf2", Segments: []string{"0"}, Hash: "sha256", Iterations: iterations, Salt: random(32)}
	for i, passphrase := range passphrases {
		s := keyslot{
			"luks2", keySize, af{"luks1", stripes, "sha256"},
			area{"raw", 2*headerSize + int64(i)*areaSize, areaSize, cipher, keySize},
			kdf{"pbkdf2", "sha256", iterations, random(32)},
		}
		if err := s.store(d, passphrase, key); err != nil {
			return nil, nil, err
		}
		id := strconv.Itoa(i)
		m.Keyslots[id] = s
		sum.Keyslots = append(sum.Keyslots, id)
	}
	var err error
	if sum.Digest, err = derive(key, sum.Hash, sum.Salt, sum.Iterations, sha256.Size); err != nil {
		return nil, nil, err
	}
	m.Digests = map[string]digest{"0": sum}
	v.meta = m
	for name, value := range map[string]any{"keyslots": m.Keyslots, "tokens": m.Tokens, "segments": m.Segments, "digests": m.Digests, "config": m.Config} {
		if err := v.setField(name, value); err != nil {
			return nil, nil, err
		}
	}
	if err := wipe(d); err != nil {
		return nil, nil, err
	}
	return v, key, v.Write(d)
}

// wipe clears what a file system before may have left at the beginning of the data.
func wipe(d Device) error {
	if _, err := d.WriteAt(make([]byte, 1<<20), dataOffset); err != nil {
		return qverr.New(qverr.StrIO, "clear the encrypted volume: %w", err)
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// Open returns the volume's key. QV_ERR_PERM: no slot is opened by this
// passphrase.
func (v *Volume) Open(d Device, passphrase []byte) ([]byte, error) {
	var other error
	for i := range maxSlots {
		id := strconv.Itoa(i)
		s, ok := v.meta.Keyslots[id]
		if !ok {
			continue
		}
		key, err := s.load(d, passphrase, 2*v.size, v.meta.Segments["0"].Offset)
		if err != nil {
			other = err
			continue
		}
		if v.isKey(id, key) {
			return key, nil
		}
	}
	if other != nil {
		return nil, other
	}
	return nil, qverr.New(qverr.Perm, "this key does not open the encrypted volume")
}

// isKey compares a key that a slot gave with the digest of the volume's.
func (v *Volume) isKey(slot string, key []byte) bool {
	for _, d := range v.meta.Digests {
		if d.Type != "pbkdf2" || !slices.Contains(d.Keyslots, slot) || !slices.Contains(d.Segments, "0") {
			continue
		}
		sum, err := derive(key, d.Hash, d.Salt, d.Iterations, len(d.Digest))
		if err == nil && len(sum) >= sha256.Size && subtle.ConstantTimeCompare(sum, d.Digest) == 1 {
			return true
		}
	}
	return false
}

var hashes = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}

func derive(passphrase []byte, name string, salt []byte, n, size int) ([]byte, error) {
	h, ok := hashes[name]
	if !ok || n < 1 || n > maxIterated || size < 1 || size > 128 {
		return nil, unusable("a key by %d rounds of %.20q, %d bytes", n, name, size)
	}
	key, err := pbkdf2.Key(h, string(passphrase), salt, n, size)
	if err != nil {
		return nil, unusable("%w", err)
	}
	return key, nil
}

// store writes the volume's key into the slot's area.
func (s keyslot) store(d Device, passphrase, key []byte) error {
	material := split(key, s.AF.Stripes)
	material = append(material, make([]byte, int(s.Area.Size)-len(material))...)
	c, err := s.cipher(passphrase)
	if err != nil {
		return err
	}
	for i := 0; i < len(material); i += areaSector {
		c.Encrypt(material[i:][:areaSector], material[i:][:areaSector], uint64(i/areaSector))
	}
	if _, err := d.WriteAt(material, s.Area.Offset); err != nil {
		return qverr.New(qverr.StrIO, "write a key slot: %w", err)
	}
	return nil
}

// load reads the volume's key, or with a wrong passphrase any, from the slot's
// area, which lies from one offset up to another.
func (s keyslot) load(d Device, passphrase []byte, from, to int64) ([]byte, error) {
	n := int64(s.KeySize) * int64(s.AF.Stripes)
	switch {
	case s.Type != "luks2" || s.KDF.Type != "pbkdf2":
		return nil, qverr.New(qverr.Unsupported, "a key slot of the encrypted volume is by %.20q, not pbkdf2", s.KDF.Type)
	case s.KeySize != keySize || s.AF.Type != "luks1" || s.AF.Stripes != stripes || s.AF.Hash != "sha256":
		return nil, unusable("a key slot of %d bytes in %d stripes by %.20q", s.KeySize, s.AF.Stripes, s.AF.Hash)
	case s.Area.Type != "raw" || s.Area.Encryption != cipher || s.Area.KeySize != keySize || s.Area.Offset < from || s.Area.Size < n || s.Area.Offset > to-s.Area.Size:
		return nil, unusable("a key slot at %d with %d bytes by %.40q", s.Area.Offset, s.Area.Size, s.Area.Encryption)
	}
	c, err := s.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	material := make([]byte, n)
	if _, err := d.ReadAt(material, s.Area.Offset); err != nil {
		return nil, qverr.New(qverr.StrIO, "read a key slot: %w", err)
	}
	for i := 0; i < len(material); i += areaSector {
		c.Decrypt(material[i:][:areaSector], material[i:][:areaSector], uint64(i/areaSector))
	}
	return merge(material, s.AF.Stripes), nil
}

func (s keyslot) cipher(passphrase []byte) (*xts.Cipher, error) {
	key, err := derive(passphrase, s.KDF.Hash, s.KDF.Salt, s.KDF.Iterations, s.Area.KeySize)
	if err != nil {
		return nil, err
	}
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, unusable("%w", err)
	}
	return c, nil
}

// split is the anti-forensic splitter (LUKS1 On-Disk Format Specification 1.2.3,
// section 2.4): all of the result is needed to get the key back.
func split(key []byte, stripes int) []byte {
	out := random(len(key) * stripes)
	last := out[len(key)*(stripes-1):]
	d := make([]byte, len(key))
	for i := range stripes - 1 {
		subtle.XORBytes(d, d, out[i*len(key):])
		diffuse(d)
	}
	subtle.XORBytes(last, d, key)
	return out
}

func merge(material []byte, stripes int) []byte {
	size := len(material) / stripes
	d := make([]byte, size)
	for i := range stripes - 1 {
		subtle.XORBytes(d, d, material[i*size:][:size])
		diffuse(d)
	}
	subtle.XORBytes(d, d, material[(stripes-1)*size:])
	return d
}

// diffuse replaces each block of b by its hash with the block's number.
func diffuse(b []byte) {
	for i := 0; i < len(b); i += sha256.Size {
		block := b[i:min(i+sha256.Size, len(b))]
		sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(i/sha256.Size)), block...))
		copy(block, sum[:])
	}
}

// SetKey has another passphrase open a slot from now on. The header must be written
// afterwards.
func (v *Volume) SetKey(d Device, slot int, passphrase, key []byte) error {
	id := strconv.Itoa(slot)
	s, ok := v.meta.Keyslots[id]
	if !ok || !v.isKey(id, key) {
		return unusable("slot %d has no key, or one of another volume", slot)
	}
	if _, err := s.load(d, nil, 2*v.size, v.meta.Segments["0"].Offset); err != nil { // its form
		return err
	}
	s.KDF = kdf{"pbkdf2", "sha256", iterations, random(32)}
	if err := s.store(d, passphrase, key); err != nil {
		return err
	}
	v.meta.Keyslots[id] = s
	return v.setField("keyslots", v.meta.Keyslots)
}
