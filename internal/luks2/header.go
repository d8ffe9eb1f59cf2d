package luks2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"quantavirt/internal/qverr"
)

// The binary header (section 2.1): sizes and offsets in bytes, big-endian.
const (
	binarySize = 4096
	headerSize = 16 << 10 // with the JSON area, as we write it
	maxHeader  = 4 << 20

	atVersion  = 6
	atSize     = 8
	atSequence = 16
	atLabel    = 24
	atSumAlg   = 72
	atSalt     = 104
	atUUID     = 168
	atOffset   = 256
	atSum      = 448

	labelSize  = 48
	sumAlgSize = 32
	saltSize   = 64
	uuidSize   = 40
	sumSize    = 64
)

var (
	magic       = []byte("LUKS\xba\xbe")
	magicSecond = []byte("SKUL\xba\xbe")
)

// secondHeaders are where the second header may be (section 2.2).
var secondHeaders = []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

// Volume is the header of an encrypted volume.
type Volume struct {
	Label string
	UUID  string

	sequence uint64
	size     int64                      // of each header
	fields   map[string]json.RawMessage // of the JSON area, those we do not know too
	meta     metadata
}

// Is tells whether what begins with head is an encrypted volume of LUKS2.
func Is(head []byte) bool {
	return len(head) > atVersion+1 && bytes.HasPrefix(head, magic) && binary.BigEndian.Uint16(head[atVersion:]) == 2
}

// Read reads the newer of the two headers that is whole. QV_STR_ERR_FORMAT:
// there is none.
func Read(r io.ReaderAt) (*Volume, error) {
	first, firstErr := readHeader(r, 0, magic)
	if errors.Is(firstErr, errRead) {
		return nil, qverr.New(qverr.StrIO, "read the header of the encrypted volume: %w", firstErr)
	}
	offsets := secondHeaders
	if first != nil {
		offsets = []int64{first.size}
	}
	var second *Volume
	for _, at := range offsets {
		if v, err := readHeader(r, at, magicSecond); err == nil {
			second = v
			break
		}
	}
	switch {
	case first == nil && second == nil:
		return nil, unusable("%w", firstErr)
	case first == nil || second != nil && second.sequence > first.sequence:
		return second, nil
	}
	return first, nil
}

var errRead = errors.New("it cannot be read")

func readHeader(r io.ReaderAt, at int64, magic []byte) (*Volume, error) {
	head := make([]byte, binarySize)
	if _, err := r.ReadAt(head, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", errRead, err)
	}
	size := binary.BigEndian.Uint64(head[atSize:])
	switch {
	case !bytes.HasPrefix(head, magic) || binary.BigEndian.Uint16(head[atVersion:]) != 2:
		return nil, errors.New("there is none of LUKS2")
	case size <= binarySize || size > maxHeader || size%binarySize != 0 || binary.BigEndian.Uint64(head[atOffset:]) != uint64(at):
		return nil, fmt.Errorf("a header of %d bytes", size)
	case cString(head[atSumAlg:][:sumAlgSize]) != "sha256":
		return nil, fmt.Errorf("a checksum by %q", cString(head[atSumAlg:][:sumAlgSize]))
	}
	area := make([]byte, size-binarySize)
	if _, err := r.ReadAt(area, at+binarySize); err != nil {
		return nil, fmt.Errorf("%w: %w", errRead, err)
	}
	sum := bytes.Clone(head[atSum:][:sha256.Size])
	if want := checksum(head, area); subtle.ConstantTimeCompare(sum, want) != 1 {
		return nil, errors.New("the checksum is another")
	}
	v := &Volume{
		Label: cString(head[atLabel:][:labelSize]), UUID: cString(head[atUUID:][:uuidSize]),
		sequence: binary.BigEndian.Uint64(head[atSequence:]), size: int64(size),
	}
	text, _, _ := bytes.Cut(area, []byte{0})
	if err := json.Unmarshal(text, &v.fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &v.meta); err != nil {
		return nil, err
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	return v, nil
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(s), "?")
}

// checksum is over both areas, with zeroes in its own place.
func checksum(head, area []byte) []byte {
	h := sha256.New()
	h.Write(head[:atSum])
	h.Write(make([]byte, sumSize))
	h.Write(head[atSum+sumSize:])
	h.Write(area)
	return h.Sum(nil)
}

// Device is what a volume lies on.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Write writes both headers, one after the other, so that one is whole whenever
// the power goes.
func (v *Volume) Write(d Device) error {
	text, err := json.Marshal(v.fields)
	if err != nil {
		return qverr.New(qverr.Generic, "write the header of the encrypted volume: %w", err)
	}
	if int64(len(text)) >= v.size-binarySize {
		return qverr.New(qverr.NoSpc, "the header of the encrypted volume is full")
	}
	v.sequence++
	for i, magic := range [][]byte{magic, magicSecond} {
		at := int64(i) * v.size
		_, err := d.WriteAt(v.encode(magic, at, text), at)
		if err == nil {
			err = d.Sync()
		}
		if err != nil {
			return qverr.New(qverr.StrIO, "write the header of the encrypted volume: %w", err)
		}
	}
	return nil
}

func (v *Volume) encode(magic []byte, at int64, text []byte) []byte {
	b := make([]byte, v.size)
	head, area := b[:binarySize], b[binarySize:]
	copy(area, text)
	copy(head, magic)
	binary.BigEndian.PutUint16(head[atVersion:], 2)
	binary.BigEndian.PutUint64(head[atSize:], uint64(v.size))
	binary.BigEndian.PutUint64(head[atSequence:], v.sequence)
	copy(head[atLabel:][:labelSize-1], v.Label)
	copy(head[atSumAlg:], "sha256")
	_, _ = rand.Read(head[atSalt:][:saltSize])
	copy(head[atUUID:][:uuidSize-1], v.UUID)
	binary.BigEndian.PutUint64(head[atOffset:], uint64(at))
	copy(head[atSum:], checksum(head, area))
	return b
}

func unusable(format string, args ...any) error {
	return qverr.New(qverr.StrFormat, "not a usable encrypted volume: "+format, args...)
}
