// Package petest makes small PE32+ images for tests.
package petest

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
)

// Section is a section of an image.
type Section struct {
	Name string
	Data string
}

const (
	peAt             = 0x40
	SectionAlignment = 0x1000
	FileAlignment    = 0x200
)

// Image returns an image with headers of headerSize bytes, a multiple of
// FileAlignment, whose sections follow one another.
func Image(headerSize int, sections ...Section) []byte {
	optional := pe.OptionalHeader64{
		Magic:               0x20b,
		SectionAlignment:    SectionAlignment,
		FileAlignment:       FileAlignment,
		SizeOfHeaders:       uint32(headerSize),
		Subsystem:           pe.IMAGE_SUBSYSTEM_EFI_APPLICATION,
		NumberOfRvaAndSizes: 16,
	}
	coff := pe.FileHeader{
		Machine:              pe.IMAGE_FILE_MACHINE_AMD64,
		NumberOfSections:     uint16(len(sections)),
		TimeDateStamp:        0x01020304,
		SizeOfOptionalHeader: uint16(binary.Size(optional)),
		Characteristics:      pe.IMAGE_FILE_EXECUTABLE_IMAGE,
	}
	address, offset := align(headerSize, SectionAlignment), headerSize
	var table, data []byte
	for _, s := range sections {
		size := align(len(s.Data), FileAlignment)
		h := pe.SectionHeader32{
			VirtualSize: uint32(len(s.Data)), VirtualAddress: uint32(address),
			SizeOfRawData: uint32(size), PointerToRawData: uint32(offset), Characteristics: 0x40000040,
		}
		copy(h.Name[:], s.Name)
		table = append(table, encode(h)...)
		data = append(append(data, s.Data...), make([]byte, size-len(s.Data))...)
		address = align(address+len(s.Data), SectionAlignment)
		offset += size
	}
	optional.SizeOfImage = uint32(address)
	head := make([]byte, peAt)
	copy(head, "MZ")
	binary.LittleEndian.PutUint32(head[0x3c:], peAt)
	image := bytes.Join([][]byte{head, []byte("PE\x00\x00"), encode(coff), encode(optional), table}, nil)
	image = append(image, make([]byte, headerSize-len(image))...)
	return append(image, data...)
}

func encode(header any) []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, header) // a struct of fixed size
	return b
}

func align(n, to int) int { return (n + to - 1) / to * to }
