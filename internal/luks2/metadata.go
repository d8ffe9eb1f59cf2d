package luks2

import (
	"encoding/json"
	"strconv"
)

// The JSON area (section 3), as far as it is used here. Numbers of 64 bits are
// strings there.
type metadata struct {
	Keyslots map[string]keyslot         `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
	Segments map[string]segment         `json:"segments"`
	Digests  map[string]digest          `json:"digests"`
	Config   config                     `json:"config"`
}

type keyslot struct {
	Type    string `json:"type"`
	KeySize int    `json:"key_size"`
	AF      af     `json:"af"`
	Area    area   `json:"area"`
	KDF     kdf    `json:"kdf"`
}

type af struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

type area struct {
	Type       string `json:"type"`
	Offset     int64  `json:"offset,string"`
	Size       int64  `json:"size,string"`
	Encryption string `json:"encryption"`
	KeySize    int    `json:"key_size"`
}

type kdf struct {
	Type       string `json:"type"`
	Hash       string `json:"hash"`
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
}

type segment struct {
	Type       string `json:"type"`
	Offset     int64  `json:"offset,string"`
	Size       string `json:"size"` // a number, or "dynamic"
	IVTweak    string `json:"iv_tweak"`
	Encryption string `json:"encryption"`
	SectorSize int    `json:"sector_size"`
}

type digest struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

type config struct {
	JSONSize     int64    `json:"json_size,string"`
	KeyslotsSize int64    `json:"keyslots_size,string"`
	Requirements *require `json:"requirements,omitempty"`
}

type require struct {
	Mandatory []string `json:"mandatory"`
}

// What we make, in bytes where it is a size.
const (
	cipher      = "aes-xts-plain64"
	keySize     = 64 // two keys of AES-256
	stripes     = 4000
	sectorSize  = 4096
	areaAlign   = 4096
	dataOffset  = 16 << 20 // as cryptsetup has it
	iterations  = 1000     // the least that the format allows
	maxIterated = 10_000_000
	areaSize    = (keySize*stripes + areaAlign - 1) / areaAlign * areaAlign
)

// MinSize is the size of the smallest volume, in bytes.
const MinSize = dataOffset + 1<<20

// Segment is where the data are, and how they are encrypted.
type Segment struct {
	Offset     int64 // bytes from the beginning of the device
	SectorSize int   // bytes
	Cipher     string
}

// Segment returns the one segment of the volume.
func (v *Volume) Segment() Segment {
	s := v.meta.Segments["0"]
	return Segment{s.Offset, s.SectorSize, s.Encryption}
}

// check refuses what this package does not know, before anything is believed.
func (v *Volume) check() error {
	s, ok := v.meta.Segments["0"]
	switch {
	case v.meta.Config.Requirements != nil && len(v.meta.Config.Requirements.Mandatory) > 0:
		return unusable("it requires %q", v.meta.Config.Requirements.Mandatory)
	case !ok || len(v.meta.Segments) != 1 || s.Type != "crypt" || s.Size != "dynamic" || s.IVTweak != "0":
		return unusable("its data are not one encrypted segment up to the end")
	case s.Encryption != cipher || s.Offset < 2*v.size || s.Offset%sectorSize != 0 || s.Offset > 1<<40:
		return unusable("its data are encrypted by %.40q from %d on", s.Encryption, s.Offset)
	case s.SectorSize != 512 && s.SectorSize != 1024 && s.SectorSize != 2048 && s.SectorSize != 4096:
		return unusable("sectors of %d bytes", s.SectorSize)
	}
	return nil
}

// Token returns the first token of a type.
func (v *Volume) Token(kind string) (json.RawMessage, bool) {
	for i := range maxSlots {
		raw, ok := v.meta.Tokens[strconv.Itoa(i)]
		if ok && tokenType(raw) == kind {
			return raw, true
		}
	}
	return nil, false
}

func tokenType(raw json.RawMessage) string {
	var t struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &t) != nil {
		return ""
	}
	return t.Type
}

// SetToken puts a token in the place of the one of its type, or adds it. The
// token must have the fields "type" and "keyslots".
func (v *Volume) SetToken(token any) error {
	raw, err := json.Marshal(token)
	if err != nil {
		return unusable("a token: %w", err)
	}
	at := ""
	for i := range maxSlots {
		id := strconv.Itoa(i)
		old, ok := v.meta.Tokens[id]
		if ok && tokenType(old) == tokenType(raw) {
			at = id
			break
		}
		if !ok && at == "" {
			at = id
		}
	}
	if at == "" {
		return unusable("it has %d tokens", len(v.meta.Tokens))
	}
	if v.meta.Tokens == nil {
		v.meta.Tokens = make(map[string]json.RawMessage)
	}
	v.meta.Tokens[at] = raw
	return v.setField("tokens", v.meta.Tokens)
}

func (v *Volume) setField(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return unusable("%s: %w", name, err)
	}
	v.fields[name] = raw
	return nil
}
