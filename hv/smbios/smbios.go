// Package smbios makes the tables that say what machine a guest runs on (DSP0134,
// SMBIOS 3.0), for firmware to place.
package smbios

import (
	"encoding/binary"

	"github.com/google/uuid"
)

// Files of fw_cfg by which firmware gets the tables.
const (
	FileAnchor = "etc/smbios/smbios-anchor"
	FileTables = "etc/smbios/smbios-tables"
)

// Config is what the tables say.
type Config struct {
	Vendor, Product, Version string
	UUID                     uuid.UUID
	Memory                   int64 // bytes
}

// Structure types, section 7.
const (
	typeSystem       = 1
	typeChassis      = 3
	typeMemoryArray  = 16
	typeMemoryDevice = 17
	typeBootStatus   = 32
	typeEnd          = 127

	anchorSize = 24

	wakePowerSwitch = 6
	chassisOther    = 1
	stateSafe       = 3
	unknown         = 2
	locationBoard   = 3
	useSystem       = 3
	eccNone         = 3
	noHandle        = 0xfffe
	formDIMM        = 9
	kindRAM         = 7
)

// Tables returns the entry point, whose address and checksum firmware fills in, and
// the structures. Firmware adds its own (type 0).
func Tables(c Config) (anchor, tables []byte) {
	b := &builder{}
	id := c.UUID
	// The first three fields of a UUID are little-endian here (7.2.1).
	wire := []byte{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6]}
	wire = append(wire, id[8:]...)
	body := append([]byte{1, 2, 3, 0}, wire...)
	b.add(typeSystem, append(body, wakePowerSwitch, 0, 0), c.Vendor, c.Product, c.Version)
	b.add(typeChassis, []byte{1, chassisOther, 0, 0, 0, stateSafe, stateSafe, stateSafe, unknown, 0, 0, 0, 0, 0, 0, 0, 0, 0}, c.Vendor)
	le := binary.LittleEndian
	array := b.next
	body = append([]byte{locationBoard, useSystem, eccNone}, le.AppendUint32(nil, 0x8000_0000)...) // the size stands behind
	body = le.AppendUint16(body, noHandle)
	body = le.AppendUint16(body, 1)
	b.add(typeMemoryArray, le.AppendUint64(body, uint64(c.Memory)))
	body = le.AppendUint16(nil, array)
	body = le.AppendUint16(body, noHandle)
	body = append(body, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, formDIMM, 0, 1, 0, kindRAM, unknown, 0, 0, 0, 0, 0, 0, 0, 0)
	body = le.AppendUint32(body, uint32(min(c.Memory>>20, 0x7fff_ffff)))
	b.add(typeMemoryDevice, append(body, make([]byte, 8)...), "RAM")
	b.add(typeBootStatus, make([]byte, 7))
	b.add(typeEnd, nil)

	anchor = make([]byte, anchorSize)
	copy(anchor, "_SM3_")
	anchor[6], anchor[7], anchor[10] = anchorSize, 3, 1
	le.PutUint32(anchor[12:], uint32(len(b.out)))
	var sum byte
	for _, v := range anchor {
		sum -= v
	}
	anchor[5] = sum
	return anchor, b.out
}

// builder appends structures and gives them handles.
type builder struct {
	out  []byte
	next uint16
}

func (b *builder) add(kind byte, body []byte, texts ...string) {
	b.out = append(b.out, kind, byte(4+len(body)))
	b.out = binary.LittleEndian.AppendUint16(b.out, b.next)
	b.out = append(b.out, body...)
	for _, s := range texts {
		b.out = append(append(b.out, s...), 0)
	}
	if len(texts) == 0 {
		b.out = append(b.out, 0)
	}
	b.out = append(b.out, 0)
	b.next++
}
