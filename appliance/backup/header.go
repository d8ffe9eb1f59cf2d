package backup

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"golang.org/x/crypto/argon2"

	"quantavirt/internal/qverr"
)

// The header, 72 bytes, little-endian:
//
//	 0  magic "QVBACKUP"
//	 8  u16 version, 1
//	10  u8  lanes of Argon2id
//	11  u8  passes of Argon2id
//	12  u32 memory of Argon2id in KiB
//	16  u32 plaintext bytes of a chunk
//	20  4 bytes of zero
//	24  salt, 16 bytes
//	40  HMAC-SHA-256 of the 40 bytes before: tells a wrong passphrase
//
// Chunks follow, each its ciphertext and a tag of 16 bytes; only the last may be
// shorter, and it may be empty. The nonce of a chunk is its number (u64, big-endian),
// three bytes of zero and 1 for the last; the header is its additional data.
const (
	magic      = "QVBACKUP"
	version    = 1
	headerSize = 72
	macAt      = 40
	saltAt     = 24
	chunkSize  = 64 << 10
)

// What Argon2id costs: the second recommended set of RFC 9106, section 4. A reader
// accepts up to the limits, so that a file from strangers costs no more.
const (
	lanes      = 4
	passes     = 3
	memory     = 64 << 10
	maxLanes   = 16
	maxPasses  = 10
	maxMemory  = 256 << 10
	minMemory  = 8 << 10
	minChunk   = 1 << 10
	maxChunk   = 1 << 20
	passphrase = 12
)

// header is a parsed header.
type header struct {
	raw   [headerSize]byte
	lanes uint8
	pass  uint8
	mem   uint32 // KiB
	chunk int    // plaintext bytes
}

// parseHeader reads a header. QV_ERR_CONFIG: it is none; QV_ERR_VERSION: of a later
// version.
func parseHeader(b []byte) (header, error) {
	var h header
	if len(b) < headerSize || !bytes.Equal(b[:len(magic)], []byte(magic)) {
		return h, qverr.New(qverr.Config, "this is no backup of a node")
	}
	copy(h.raw[:], b)
	if v := binary.LittleEndian.Uint16(b[8:]); v != version {
		return h, qverr.New(qverr.Version, "the backup has version %d of its form, this system knows %d", v, version)
	}
	h.lanes, h.pass, h.mem = b[10], b[11], binary.LittleEndian.Uint32(b[12:])
	chunk := binary.LittleEndian.Uint32(b[16:])
	h.chunk = int(chunk)
	switch {
	case h.lanes < 1 || h.lanes > maxLanes, h.pass < 1 || h.pass > maxPasses, h.mem < minMemory || h.mem > maxMemory,
		chunk < minChunk || chunk > maxChunk, binary.LittleEndian.Uint32(b[20:]) != 0:
		return h, qverr.New(qverr.Config, "the backup's header is damaged")
	}
	return h, nil
}

// newHeader makes the header of a new file, all but its MAC.
func newHeader() (header, error) {
	var raw [headerSize]byte
	copy(raw[:], magic)
	binary.LittleEndian.PutUint16(raw[8:], version)
	raw[10], raw[11] = lanes, passes
	binary.LittleEndian.PutUint32(raw[12:], memory)
	binary.LittleEndian.PutUint32(raw[16:], chunkSize)
	if _, err := io.ReadFull(rand.Reader, raw[saltAt:macAt]); err != nil {
		return header{}, qverr.New(qverr.Generic, "make a salt: %w", err)
	}
	return parseHeader(raw[:])
}

// keys derives the key of the chunks, and the MAC that the header must have.
func (h *header) keys(secret string) (key, mac []byte) {
	k := argon2.IDKey([]byte(secret), h.raw[saltAt:macAt], uint32(h.pass), h.mem, h.lanes, 64)
	m := hmac.New(sha256.New, k[32:])
	m.Write(h.raw[:macAt])
	return k[:32], m.Sum(nil)
}

// CheckPassphrase refuses one that is too short to keep the keys of a node behind.
func CheckPassphrase(secret string) error {
	if len(secret) < passphrase {
		return qverr.New(qverr.Inval, "the passphrase has %d bytes, at least %d are needed", len(secret), passphrase)
	}
	return nil
}
