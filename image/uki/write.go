package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"

	"quantavirt/internal/pefile"
)

// write puts the stub's headers, changed, and the sections into one file.
func write(stubBytes []byte, stub *pefile.File, sections []section) ([]byte, error) {
	var coff pe.FileHeader
	var optional pe.OptionalHeader64
	if err := decode(stubBytes[stub.COFFHeader:], &coff); err != nil {
		return nil, err
	}
	if err := decode(stubBytes[stub.OptionalHeader:], &optional); err != nil {
		return nil, err
	}
	if room := stub.SectionTable - stub.OptionalHeader; room < int64(binary.Size(optional)) {
		return nil, fmt.Errorf("uki: the stub's optional header has %d bytes, want %d", room, binary.Size(optional))
	}
	table := int64(binary.Size(pe.SectionHeader32{}) * len(sections))
	if room := int64(stub.SizeOfHeaders) - stub.SectionTable; table > room {
		return nil, fmt.Errorf("uki: the stub's headers have room for %d sections, %d are needed",
			room/int64(binary.Size(pe.SectionHeader32{})), len(sections))
	}
	coff.NumberOfSections = uint16(len(sections))
	coff.TimeDateStamp = 0
	last := sections[len(sections)-1]
	optional.CheckSum = 0
	optional.SizeOfImage = uint32(align(uint64(last.address)+uint64(last.size), stub.SectionAlignment))
	for _, s := range sections[len(stub.Sections):] {
		optional.SizeOfInitializedData += uint32(align(uint64(len(s.data)), stub.FileAlignment))
	}

	var image bytes.Buffer
	image.Write(stubBytes[:stub.COFFHeader])
	encode(&image, coff)
	encode(&image, optional)
	image.Write(make([]byte, stub.SectionTable-int64(image.Len())))
	for _, s := range sections {
		encode(&image, s.header(stub.FileAlignment))
	}
	for _, s := range sections {
		if len(s.data) > 0 {
			image.Write(make([]byte, int(s.offset)-image.Len()))
			image.Write(s.data)
		}
	}
	image.Write(make([]byte, align(uint64(image.Len()), stub.FileAlignment)-uint64(image.Len())))
	return image.Bytes(), nil
}

// header is the section's entry of the section table.
func (s section) header(fileAlignment uint32) pe.SectionHeader32 {
	h := pe.SectionHeader32{
		VirtualSize:      s.size,
		VirtualAddress:   s.address,
		SizeOfRawData:    uint32(align(uint64(len(s.data)), fileAlignment)),
		PointerToRawData: s.offset,
		Characteristics:  s.characteristics,
	}
	copy(h.Name[:], s.name)
	return h
}

func decode(data []byte, header any) error {
	if _, err := binary.Decode(data, binary.LittleEndian, header); err != nil {
		return fmt.Errorf("uki: headers of the stub: %w", err)
	}
	return nil
}

// encode appends a header, which has a fixed size.
func encode(image *bytes.Buffer, header any) {
	_ = binary.Write(image, binary.LittleEndian, header) // a buffer takes everything
}
