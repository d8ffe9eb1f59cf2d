package keystore

import (
	"bytes"
	"crypto/sha3"
	"encoding/binary"
	"encoding/json"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// The file: 8 bytes of magic, its version and the size of the header (32 bits each,
// little-endian), the header in JSON, 32 bytes of salt, the keys under AES-256-GCM, and
// SHA3-256 of all before, by which a damaged file is known also while nothing opens it.
const (
	magic    = "QVKEYS\r\n" // a copy in text mode breaks it, and says so
	version  = 1
	saltSize = 32
	tagSize  = 16
	sumSize  = 32
	fixed    = len(magic) + 8
)

// Bounds of a file that is not known to be ours yet.
const (
	maxFile   = 64 << 20
	maxHeader = 64 << 10
	maxKeys   = 4096
	maxMeta   = 4 << 10
	maxPart   = 16 << 10 // of a public or secret key: the largest is of SLH-DSA and ML-DSA, below 5 KiB
)

// header is the part in clear.
type header struct {
	ID         uuid.UUID   `json:"id"`
	Generation uint64      `json:"generation"`
	Counter    string      `json:"counter"` // who counts along
	Passphrase *passphrase `json:"passphrase,omitempty"`
	Sealed     *sealedKey  `json:"sealed,omitempty"`
}

// sealedKey is the master key as a Sealer gave it.
type sealedKey struct {
	By   string          `json:"by"`
	Data json.RawMessage `json:"data"`
}

// file is one that was read and not opened yet.
type file struct {
	header
	additional []byte // magic to salt
	salt       []byte
	sealed     []byte // the keys
}

func refused(text string, args ...any) *qverr.Error {
	return qverr.New(qverr.PQCKeystore, text, args...)
}

// parseFile cuts a file in its parts; nothing in it is proven to be ours.
func parseFile(data []byte) (file, error) {
	n := len(data) - sumSize
	if n < 0 {
		return file{}, refused("the keystore's file is damaged: it has %d bytes", len(data))
	}
	if sum := sha3.Sum256(data[:n]); !bytes.Equal(sum[:], data[n:]) {
		return file{}, refused("the keystore's file is damaged: its checksum is another")
	}
	return parseParts(data[:n])
}

// parseParts is parseFile without the checksum.
func parseParts(data []byte) (file, error) {
	var f file
	if len(data) < fixed || string(data[:len(magic)]) != magic {
		return f, refused("the keystore's file is damaged: it does not begin as one")
	}
	if v := binary.LittleEndian.Uint32(data[len(magic):]); v != version {
		return f, refused("the keystore's file is of version %d, this system knows %d", v, version)
	}
	n := int(min(binary.LittleEndian.Uint32(data[len(magic)+4:]), maxHeader+1))
	if n > maxHeader || len(data) < fixed+n+saltSize+tagSize {
		return f, refused("the keystore's file is damaged: it ends too early")
	}
	d := json.NewDecoder(bytes.NewReader(data[fixed : fixed+n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&f.header); err != nil {
		return f, refused("the keystore's file is damaged: its header: %w", err)
	}
	if d.More() {
		return f, refused("the keystore's file is damaged: its header goes on")
	}
	if f.Passphrase != nil {
		if err := f.Passphrase.check(); err != nil {
			return f, err
		}
	}
	f.additional, f.sealed = data[:fixed+n+saltSize], data[fixed+n+saltSize:]
	f.salt = f.additional[fixed+n:]
	return f, nil
}

// clear writes the part in clear, up to the salt.
func (h header) clear(salt []byte) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "encode the keystore's header: %w", err)
	}
	if len(text) > maxHeader {
		return nil, qverr.New(qverr.Limit, "the keystore's header would have %d bytes, at most %d are allowed", len(text), maxHeader)
	}
	b := append(make([]byte, 0, fixed+len(text)+saltSize), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(append(b, text...), salt...), nil
}

// record is a key in the file: its description in JSON, its public and its secret
// part, each behind its size.
type record struct {
	key    Key
	secret []byte
}

// size is that of all records; see appendRecords.
func size(records []record) (int, error) {
	n := 4
	for _, r := range records {
		meta, err := json.Marshal(r.key)
		if err != nil {
			return 0, qverr.New(qverr.Generic, "encode key %s: %w", r.key.name(), err)
		}
		n += 12 + len(meta) + len(r.key.Public) + len(r.secret)
	}
	return n, nil
}

// appendRecords writes the records; b has the capacity, so that no secret is copied
// elsewhere.
func appendRecords(b []byte, records []record) ([]byte, error) {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(records)))
	for _, r := range records {
		meta, err := json.Marshal(r.key)
		if err != nil {
			return nil, qverr.New(qverr.Generic, "encode key %s: %w", r.key.name(), err)
		}
		for _, part := range [][]byte{meta, r.key.Public, r.secret} {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
			b = append(b, part...)
		}
	}
	return b, nil
}

// parseRecords reads the records. Secrets are parts of b, and public keys copies.
func parseRecords(b []byte) ([]record, error) {
	damaged := func(what string) error { return refused("the keystore's keys are damaged: %s", what) }
	if len(b) < 4 {
		return nil, damaged("there is no number of keys")
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxKeys {
		return nil, damaged("there are too many")
	}
	b = b[4:]
	part := func(limit uint32) ([]byte, bool) {
		if len(b) < 4 {
			return nil, false
		}
		n := binary.LittleEndian.Uint32(b)
		if n > limit || int64(n) > int64(len(b)-4) {
			return nil, false
		}
		p := b[4 : 4+n : 4+n]
		b = b[4+n:]
		return p, true
	}
	var records []record
	seen := make(map[string]bool)
	for range n {
		meta, ok1 := part(maxMeta)
		public, ok2 := part(maxPart)
		secret, ok3 := part(maxPart)
		if !ok1 || !ok2 || !ok3 {
			return nil, damaged("a key ends too early")
		}
		r := record{secret: secret}
		if err := json.Unmarshal(meta, &r.key); err != nil {
			return nil, refused("the keystore's keys are damaged: %w", err)
		}
		r.key.Public = bytes.Clone(public)
		if err := r.check(); err != nil {
			return nil, err
		}
		if seen[r.key.ID] {
			return nil, damaged("a key is there twice")
		}
		seen[r.key.ID] = true
		records = append(records, r)
	}
	if len(b) != 0 {
		return nil, damaged("there is something behind them")
	}
	return records, nil
}

// check holds the parts of a key against each other.
func (r record) check() error {
	params, err := r.key.Algorithm.Params()
	if err != nil {
		return refused("the keystore's keys are damaged: %w", err)
	}
	if _, err := uuid.Parse(r.key.ID); err != nil {
		return refused("the keystore's keys are damaged: %w", err)
	}
	if usages[params.Family] == nil || len(r.key.Public) != params.PublicKey || !r.rightSize(params) || checkLabel(r.key.Label) != nil {
		return refused("the keystore's keys are damaged: key %s has wrong sizes", r.key.ID)
	}
	return nil
}

// rightSize says whether the secret is one, in its short or its expanded form, or the handle of
// one that a card keeps.
func (r record) rightSize(p pqc.Params) bool {
	n := len(r.secret)
	if r.key.Card != "" {
		return n == handleSize
	}
	return n > 0 && (n == p.Seed || n == p.SecretKey)
}
