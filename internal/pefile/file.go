package pefile

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"

	"quantavirt/internal/qverr"
)

// MaxSections is how many sections an image may have ("Section Table": the
// Windows loader takes 96).
const MaxSections = 96

// Sizes and offsets of the specification: "MS-DOS Stub", "COFF File Header",
// "Optional Header" (PE32+), "Section Table".
const (
	newHeaderAt       = 0x3c // in the DOS header: where the PE signature is
	signatureSize     = 4
	coffSize          = 20
	optionalMin       = 112 // without data directories
	directorySize     = 8
	directories       = 16
	sectionHeaderSize = 40

	machineAMD64 = 0x8664
	magicPE32    = 0x20b // "PE32+"

	certificateDirectory = 4
	debugDirectory       = 6
)

// File is the layout of an image.
type File struct {
	// Offsets in the file of what a writer changes.
	COFFHeader      int64 // the COFF header
	OptionalHeader  int64
	Checksum        int64 // the optional header's CheckSum, 4 bytes
	CertificateSlot int64 // the data directory of the certificate table, 8 bytes
	SectionTable    int64

	SectionAlignment uint32 // in memory
	FileAlignment    uint32
	SizeOfImage      uint32
	SizeOfHeaders    uint32

	Symbols bool // has a COFF symbol table
	Debug   bool // has a debug directory, which holds file offsets

	Sections     []Section // ascending
	Certificates Range     // the certificate table; Size 0 if the image is not signed

	r    io.ReaderAt
	size int64
}

// Range is a range of the file.
type Range struct {
	Offset, Size uint32
}

// Section is a section of an image.
type Section struct {
	Name            string
	Address         uint32 // relative to the image's base
	Size            uint32 // in memory: VirtualSize
	Data            Range  // in the file, padded to FileAlignment
	Characteristics uint32

	r io.ReaderAt
}

// Open reads the headers of an image of size bytes. A malformed image is
// qverr.Inval.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size > math.MaxUint32 {
		return nil, malformed("%d bytes are more than offsets of 32 bits reach", size)
	}
	f := &File{r: r, size: size}
	dos, err := f.read(0, newHeaderAt+4)
	if err != nil {
		return nil, err
	}
	if string(dos[:2]) != "MZ" {
		return nil, malformed("it does not begin with MZ")
	}
	at := int64(binary.LittleEndian.Uint32(dos[newHeaderAt:]))
	head, err := f.read(at, signatureSize+coffSize)
	if err != nil {
		return nil, err
	}
	if string(head[:signatureSize]) != "PE\x00\x00" {
		return nil, malformed("no PE signature at %#x", at)
	}
	f.COFFHeader = at + signatureSize
	f.OptionalHeader = f.COFFHeader + coffSize
	coff := head[signatureSize:]
	if machine := binary.LittleEndian.Uint16(coff); machine != machineAMD64 {
		return nil, malformed("machine %#x, want x86-64 (%#x)", machine, machineAMD64)
	}
	f.Symbols = binary.LittleEndian.Uint32(coff[8:]) != 0 || binary.LittleEndian.Uint32(coff[12:]) != 0
	optional := int64(binary.LittleEndian.Uint16(coff[16:]))
	if err := f.readOptional(optional); err != nil {
		return nil, err
	}
	f.SectionTable = f.OptionalHeader + optional
	if err := f.readSections(int(binary.LittleEndian.Uint16(coff[2:]))); err != nil {
		return nil, err
	}
	return f, f.checkCertificates()
}

// readOptional reads the optional header of n bytes.
func (f *File) readOptional(n int64) error {
	if n < optionalMin+certificateDirectory*directorySize+directorySize {
		return malformed("optional header of %d bytes has no room for the certificate table", n)
	}
	h, err := f.read(f.OptionalHeader, n)
	if err != nil {
		return err
	}
	if magic := binary.LittleEndian.Uint16(h); magic != magicPE32 {
		return malformed("optional header %#x, want PE32+ (%#x)", magic, magicPE32)
	}
	f.SectionAlignment = binary.LittleEndian.Uint32(h[32:])
	f.FileAlignment = binary.LittleEndian.Uint32(h[36:])
	f.SizeOfImage = binary.LittleEndian.Uint32(h[56:])
	f.SizeOfHeaders = binary.LittleEndian.Uint32(h[60:])
	f.Checksum = f.OptionalHeader + 64
	count := int64(binary.LittleEndian.Uint32(h[108:]))
	if count <= certificateDirectory || count > directories || optionalMin+count*directorySize > n {
		return malformed("%d data directories in an optional header of %d bytes", count, n)
	}
	directory := func(i int64) Range {
		entry := h[optionalMin+i*directorySize:]
		return Range{binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])}
	}
	f.CertificateSlot = f.OptionalHeader + optionalMin + certificateDirectory*directorySize
	f.Certificates = directory(certificateDirectory)
	f.Debug = count > debugDirectory && directory(debugDirectory) != Range{}
	if !alignment(f.FileAlignment) || !alignment(f.SectionAlignment) || f.SectionAlignment < f.FileAlignment {
		return malformed("alignment %#x in memory and %#x in the file", f.SectionAlignment, f.FileAlignment)
	}
	if int64(f.SizeOfHeaders) > f.size || f.SizeOfHeaders%f.FileAlignment != 0 {
		return malformed("headers of %#x bytes in a file of %#x", f.SizeOfHeaders, f.size)
	}
	return nil
}

// alignment tells whether n is a power of two from 512 to 2 MiB, of which the
// specification asks the file's to be at most 64 KiB.
func alignment(n uint32) bool { return n >= 512 && n <= 2<<20 && n&(n-1) == 0 }

// readSections reads the section table of n entries.
func (f *File) readSections(n int) error {
	if n < 1 || n > MaxSections {
		return malformed("%d sections, want 1 to %d", n, MaxSections)
	}
	if end := f.SectionTable + int64(n)*sectionHeaderSize; end > int64(f.SizeOfHeaders) {
		return malformed("%d sections reach beyond the headers", n)
	}
	table, err := f.read(f.SectionTable, int64(n)*sectionHeaderSize)
	if err != nil {
		return err
	}
	address, offset := uint64(f.SizeOfHeaders), uint64(f.SizeOfHeaders) // the next one may begin here
	for i := range n {
		h := table[i*sectionHeaderSize:]
		name, _, _ := bytes.Cut(h[:8], []byte{0})
		s := Section{
			Name:            string(name),
			Size:            binary.LittleEndian.Uint32(h[8:]),
			Address:         binary.LittleEndian.Uint32(h[12:]),
			Data:            Range{Size: binary.LittleEndian.Uint32(h[16:]), Offset: binary.LittleEndian.Uint32(h[20:])},
			Characteristics: binary.LittleEndian.Uint32(h[36:]),
			r:               f.r,
		}
		if uint64(s.Address) < address || s.Address%f.SectionAlignment != 0 {
			return malformed("section %q at %#x overlaps another or is not aligned", s.Name, s.Address)
		}
		if address = uint64(s.Address) + uint64(s.Size); address > uint64(f.SizeOfImage) {
			return malformed("section %q ends at %#x, beyond the image of %#x bytes", s.Name, address, f.SizeOfImage)
		}
		if s.Data.Size > 0 {
			if uint64(s.Data.Offset) < offset || s.Data.Offset%f.FileAlignment != 0 || s.Data.Size%f.FileAlignment != 0 {
				return malformed("data of section %q at %#x overlap others or are not aligned", s.Name, s.Data.Offset)
			}
			if offset = uint64(s.Data.Offset) + uint64(s.Data.Size); offset > uint64(f.size) {
				return malformed("section %q ends at %#x, the file at %#x", s.Name, offset, f.size)
			}
		}
		f.Sections = append(f.Sections, s)
	}
	return nil
}

// End is where the data of the last section end in the file.
func (f *File) End() int64 {
	end := int64(f.SizeOfHeaders)
	for _, s := range f.Sections {
		if s.Data.Size > 0 {
			end = int64(s.Data.Offset) + int64(s.Data.Size)
		}
	}
	return end
}

// Size is that of the file.
func (f *File) Size() int64 { return f.size }

// checkCertificates wants the certificate table at the end of the file.
func (f *File) checkCertificates() error {
	c := f.Certificates
	if c == (Range{}) {
		return nil
	}
	if c.Size == 0 || c.Offset%8 != 0 || int64(c.Offset) < f.End() || int64(c.Offset)+int64(c.Size) != f.size {
		return malformed("certificate table of %#x bytes at %#x does not end the file of %#x bytes", c.Size, c.Offset, f.size)
	}
	return nil
}

// Reader returns what the file holds of the section's memory, without padding.
// What is missing up to s.Size is zero in memory.
func (s Section) Reader() *io.SectionReader {
	return io.NewSectionReader(s.r, int64(s.Data.Offset), int64(min(s.Size, s.Data.Size)))
}

func (f *File) read(at, n int64) ([]byte, error) {
	if at > f.size || n > f.size-at {
		return nil, malformed("%d bytes at %#x are beyond the end of the file, %#x", n, at, f.size)
	}
	b := make([]byte, n)
	if got, err := f.r.ReadAt(b, at); got < len(b) {
		return nil, qverr.New(qverr.IO, "read an EFI image: %w", err)
	}
	return b, nil
}

func malformed(format string, args ...any) error {
	return qverr.New(qverr.Inval, "not a usable EFI image for x86-64: "+format, args...)
}
