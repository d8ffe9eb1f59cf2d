package efivar

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
)

// Active is LOAD_OPTION_ACTIVE: the firmware boots it by itself.
const Active = 0x1

// LoadOption is an EFI_LOAD_OPTION: something to boot.
type LoadOption struct {
	Attributes  uint32
	Description string // shown in the firmware's menu
	Path        []byte // device paths, packed
	Optional    []byte // for the program
}

// maxPath is the largest length of Path, in bytes: its field has 16 bits.
const maxPath = 0xffff

// ParseLoadOption reads the value of a variable Boot####. QV_ERR_INVAL: it is cut
// off.
func ParseLoadOption(data []byte) (LoadOption, error) {
	if len(data) < 6 {
		return LoadOption{}, cut("load option", len(data))
	}
	o := LoadOption{Attributes: binary.LittleEndian.Uint32(data)}
	size := int(binary.LittleEndian.Uint16(data[4:]))
	text, rest, ok := wide(data[6:])
	if !ok || size > len(rest) {
		return LoadOption{}, cut("load option", len(data))
	}
	o.Description, o.Path, o.Optional = text, bytes.Clone(rest[:size]), bytes.Clone(rest[size:])
	return o, nil
}

// Encode is the value of the variable.
func (o LoadOption) Encode() ([]byte, error) {
	if len(o.Path) > maxPath || strings.Contains(o.Description, "\x00") {
		return nil, qverr.New(qverr.Inval, "load option %q with device paths of %d bytes, at most %d are possible", o.Description, len(o.Path), maxPath)
	}
	out := binary.LittleEndian.AppendUint32(nil, o.Attributes)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(o.Path)))
	out = appendWide(out, o.Description)
	return append(append(out, o.Path...), o.Optional...), nil
}

func cut(what string, n int) error {
	return qverr.New(qverr.Inval, "a %s of %d bytes is cut off", what, n)
}

// wide reads a text in UTF-16 up to its NUL.
func wide(data []byte) (text string, rest []byte, ok bool) {
	var units []uint16
	for ; len(data) >= 2; data = data[2:] {
		u := binary.LittleEndian.Uint16(data)
		if u == 0 {
			return string(utf16.Decode(units)), data[2:], true
		}
		units = append(units, u)
	}
	return "", nil, false
}

func appendWide(out []byte, text string) []byte {
	for _, u := range utf16.Encode([]rune(text)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return append(out, 0, 0)
}

// Partition of a GPT, as a device path names it.
type Partition struct {
	Number      uint32
	First, Size uint64 // sectors
	ID          uuid.UUID
}

// Types of nodes of a device path, by type and subtype.
const (
	nodeHardDrive = 0x0104 // section 10.3.5.1
	nodeFile      = 0x0404 // section 10.3.5.4
	nodeEnd       = 0xff7f
)

const (
	nodeHeader    = 4
	hardDriveSize = 42
	formatGPT     = 2
	signatureGUID = 2
)

// FilePath is the short form of a file's device path: its partition, wherever the
// disk is plugged, and its path with slashes (section 3.1.2).
func FilePath(p Partition, path string) []byte {
	out := node(nil, nodeHardDrive, hardDriveSize)
	out = binary.LittleEndian.AppendUint32(out, p.Number)
	out = binary.LittleEndian.AppendUint64(out, p.First)
	out = binary.LittleEndian.AppendUint64(out, p.Size)
	id := mixed(p.ID)
	out = append(append(out, id[:]...), formatGPT, signatureGUID)
	name := appendWide(nil, `\`+strings.ReplaceAll(path, "/", `\`))
	out = append(node(out, nodeFile, nodeHeader+len(name)), name...)
	return node(out, nodeEnd, nodeHeader)
}

func node(out []byte, kind uint16, size int) []byte {
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(out, kind), uint16(size))
}

// File is the file that an option boots, if its path has the form of FilePath.
func (o LoadOption) File() (p Partition, path string, ok bool) {
	drive, rest, ok := cutNode(o.Path, nodeHardDrive)
	if !ok || len(drive) != hardDriveSize-nodeHeader || drive[36] != formatGPT || drive[37] != signatureGUID {
		return p, "", false
	}
	name, rest, ok := cutNode(rest, nodeFile)
	if !ok {
		return p, "", false
	}
	if end, after, ok := cutNode(rest, nodeEnd); !ok || len(end)+len(after) > 0 {
		return p, "", false
	}
	text, after, ok := wide(name)
	if !ok || len(after) > 0 {
		return p, "", false
	}
	le := binary.LittleEndian
	p = Partition{le.Uint32(drive), le.Uint64(drive[4:]), le.Uint64(drive[12:]), mixed(uuid.UUID(drive[20:36]))}
	return p, strings.ReplaceAll(strings.TrimPrefix(text, `\`), `\`, "/"), true
}

// cutNode takes a node of a kind off a device path.
func cutNode(path []byte, kind uint16) (content, rest []byte, ok bool) {
	if len(path) < nodeHeader || binary.LittleEndian.Uint16(path) != kind {
		return nil, nil, false
	}
	size := int(binary.LittleEndian.Uint16(path[2:]))
	if size < nodeHeader || size > len(path) {
		return nil, nil, false
	}
	return path[nodeHeader:size], path[size:], true
}

// mixed changes between an EFI_GUID, whose first three fields are little-endian,
// and the order of bytes of RFC 9562.
func mixed(id uuid.UUID) uuid.UUID {
	return uuid.UUID{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]}
}
