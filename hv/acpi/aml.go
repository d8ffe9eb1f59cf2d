package acpi

import (
	"encoding/binary"
	"strings"
)

// The functions below encode one AML term each (ACPI 6.5, chapter 20); a term is
// its bytes, so that terms nest by being arguments.

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// packaged puts the PkgLength in front of body; it counts itself.
func packaged(body []byte) []byte {
	n := len(body)
	switch {
	case n+1 <= 0x3f:
		return append([]byte{byte(n + 1)}, body...)
	case n+2 <= 0xfff:
		n += 2
		return append([]byte{0x40 | byte(n&0xf), byte(n >> 4)}, body...)
	default:
		n += 3
		return append([]byte{0x80 | byte(n&0xf), byte(n >> 4), byte(n >> 12)}, body...)
	}
}

// segment is a NameSeg: four characters, filled up with underscores; a leading
// backslash stays in front.
func segment(name string) []byte {
	var out []byte
	if name[0] == '\\' {
		out, name = append(out, '\\'), name[1:]
	}
	for len(name) < 4 {
		name += "_"
	}
	return append(out, name...)
}

func scope(name string, terms ...[]byte) []byte {
	return append([]byte{0x10}, packaged(join(segment(name), join(terms...)))...)
}

func device(name string, terms ...[]byte) []byte {
	return append([]byte{0x5b, 0x82}, packaged(join(segment(name), join(terms...)))...)
}

// method takes no arguments.
func method(id string, terms ...[]byte) []byte {
	return append([]byte{0x14}, packaged(join(segment(id), []byte{0}, join(terms...)))...)
}

// notify tells the driver of the device at path, which is two names from the root.
func notify(path string, value uint64) []byte {
	first, second, _ := strings.Cut(path[1:], ".")
	return join([]byte{0x86, '\\', 0x2e}, segment(first), segment(second), integer(value))
}

func name(id string, value []byte) []byte { return join([]byte{0x08}, segment(id), value) }

func integer(v uint64) []byte {
	switch {
	case v <= 1:
		return []byte{byte(v)}
	case v <= 0xff:
		return []byte{0x0a, byte(v)}
	case v <= 0xffff:
		return binary.LittleEndian.AppendUint16([]byte{0x0b}, uint16(v))
	case v <= 0xffff_ffff:
		return binary.LittleEndian.AppendUint32([]byte{0x0c}, uint32(v))
	default:
		return binary.LittleEndian.AppendUint64([]byte{0x0e}, v)
	}
}

func text(s string) []byte { return join([]byte{0x0d}, []byte(s), []byte{0}) }

// eisaID packs an identifier as PNP0A08: three letters, four hex digits.
func eisaID(id string) []byte {
	hex := func(c byte) uint32 {
		if c >= 'A' {
			return uint32(c-'A') + 10
		}
		return uint32(c - '0')
	}
	v := uint32(id[0]-'@')<<26 | uint32(id[1]-'@')<<21 | uint32(id[2]-'@')<<16
	for i := range 4 {
		v |= hex(id[3+i]) << (12 - 4*i)
	}
	return append([]byte{0x0c}, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func list(terms ...[]byte) []byte {
	return append([]byte{0x12}, packaged(append([]byte{byte(len(terms))}, join(terms...)...))...)
}

// buffer holds data with its length.
func buffer(data []byte) []byte {
	return append([]byte{0x11}, packaged(join(integer(uint64(len(data))), data))...)
}

// resources is a buffer of resource descriptors with their end tag; a checksum
// of 0 says that there is none.
func resources(descriptors ...[]byte) []byte {
	return buffer(join(join(descriptors...), []byte{0x79, 0}))
}

// ioPorts is a fixed range of ports, decoded with 16 bits.
func ioPorts(first uint16, count uint8) []byte {
	d := []byte{0x47, 1}
	d = binary.LittleEndian.AppendUint16(d, first)
	d = binary.LittleEndian.AppendUint16(d, first)
	return append(d, 1, count)
}

// irqLine is one edge-triggered ISA interrupt.
func irqLine(n int) []byte {
	return binary.LittleEndian.AppendUint16([]byte{0x22}, 1<<n)
}

// memoryFixed is a range of memory below 4 GiB.
func memoryFixed(r Range) []byte {
	d := []byte{0x86, 9, 0, 1}
	d = binary.LittleEndian.AppendUint32(d, uint32(r.Base))
	return binary.LittleEndian.AppendUint32(d, uint32(r.Size))
}

// Kinds of an address space descriptor, and its flags: produced by the bridge,
// minimum and maximum fixed, positive decoding.
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2

	spaceFixed        = 0x0c
	memReadWrite      = 1
	memPrefetchCached = 3 << 1
	ioWhole           = 3
)

func busNumbers(first, last uint16) []byte {
	return space16(spaceBus, 0, first, last)
}

func ioWindow(first, last uint16) []byte {
	return space16(spaceIO, ioWhole, first, last)
}

func space16(kind, flags uint8, first, last uint16) []byte {
	d := []byte{0x88, 13, 0, kind, spaceFixed, flags, 0, 0}
	d = binary.LittleEndian.AppendUint16(d, first)
	d = binary.LittleEndian.AppendUint16(d, last)
	d = append(d, 0, 0)
	return binary.LittleEndian.AppendUint16(d, last-first+1)
}

func memoryWindow32(r Range) []byte {
	d := []byte{0x87, 23, 0, spaceMemory, spaceFixed, memReadWrite, 0, 0, 0, 0}
	for _, v := range []uint32{uint32(r.Base), uint32(r.Base + r.Size - 1), 0, uint32(r.Size)} {
		d = binary.LittleEndian.AppendUint32(d, v)
	}
	return d
}

func memoryWindow64(r Range) []byte {
	d := []byte{0x8a, 43, 0, spaceMemory, spaceFixed, memReadWrite | memPrefetchCached, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, v := range []uint64{r.Base, r.Base + r.Size - 1, 0, r.Size} {
		d = binary.LittleEndian.AppendUint64(d, v)
	}
	return d
}
