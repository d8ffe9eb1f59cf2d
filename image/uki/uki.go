package uki

import (
	"bytes"
	"fmt"
	"strings"

	"quantavirt/internal/pefile"
	"quantavirt/internal/ukifile"
)

// maxCmdline is what an x86 kernel takes of a command line, without the NUL
// (COMMAND_LINE_SIZE).
const maxCmdline = 2047

// Parts are what an image is made from.
type Parts struct {
	Stub      []byte // systemd's linuxx64.efi.stub
	Kernel    []byte // bzImage with an EFI entry point
	Initrd    []byte
	Microcode []byte // cpio archive with processor microcode; nil for none
	Cmdline   string
	OSRelease string // os-release(5)
	Uname     string // release of the kernel
	SBAT      string // lines of ours, after those of the stub
}

// characteristics of the sections that are added: initialized data, readable.
const characteristics = 0x40000040

// section is a section of the image being made.
type section struct {
	name            string
	address         uint32
	size            uint32 // in memory
	data            []byte
	offset          uint32 // of data in the file
	characteristics uint32
}

// Make returns the image.
func Make(p Parts) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	stub, err := pefile.Open(bytes.NewReader(p.Stub), int64(len(p.Stub)))
	if err != nil {
		return nil, fmt.Errorf("uki: stub: %w", err)
	}
	if stub.Symbols || stub.Debug || stub.Certificates.Size != 0 || stub.End() != stub.Size() {
		return nil, fmt.Errorf("uki: the stub has symbols, a debug directory, a signature or bytes after its last section, which would not survive")
	}
	sections, err := p.stubSections(stub)
	if err != nil {
		return nil, err
	}
	sections = append(sections, p.sections()...)
	if err := layout(stub, sections); err != nil {
		return nil, err
	}
	image, err := write(p.Stub, stub, sections)
	if err != nil {
		return nil, err
	}
	// The reader is strict: what it takes, firmware and stub take.
	if _, err := ukifile.Open(bytes.NewReader(image), int64(len(image))); err != nil {
		return nil, fmt.Errorf("uki: the outcome: %w", err)
	}
	return image, nil
}

func (p Parts) check() error {
	if len(p.Kernel) == 0 || len(p.Initrd) == 0 || p.OSRelease == "" || p.Uname == "" || p.Cmdline == "" {
		return fmt.Errorf("uki: kernel, initrd, os-release, uname and command line must not be empty")
	}
	if len(p.Cmdline) > maxCmdline {
		return fmt.Errorf("uki: command line of %d bytes, the kernel takes %d", len(p.Cmdline), maxCmdline)
	}
	for _, text := range []string{p.Cmdline, p.OSRelease, p.Uname, p.SBAT} {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("uki: %q holds a NUL", text)
		}
	}
	return nil
}

// sections are those that are added, the kernel last.
func (p Parts) sections() []section {
	list := []section{
		{name: ukifile.OSRelease, data: []byte(p.OSRelease)},
		{name: ukifile.Uname, data: []byte(p.Uname)},
		{name: ukifile.Cmdline, data: []byte(p.Cmdline)},
	}
	if p.Microcode != nil {
		list = append(list, section{name: ukifile.Microcode, data: p.Microcode})
	}
	list = append(list,
		section{name: ukifile.Initrd, data: p.Initrd},
		section{name: ukifile.Linux, data: p.Kernel})
	for i := range list {
		list[i].size, list[i].characteristics = uint32(len(list[i].data)), characteristics
	}
	return list
}

// stubSections are those of the stub, its .sbat with our lines.
func (p Parts) stubSections(stub *pefile.File) ([]section, error) {
	var list []section
	sbat := false
	for _, s := range stub.Sections {
		data := p.Stub[s.Data.Offset:][:s.Data.Size]
		if s.Size < s.Data.Size {
			data = data[:s.Size] // the rest is padding
		}
		out := section{name: s.Name, address: s.Address, size: s.Size, data: data, characteristics: s.Characteristics}
		if s.Name == ukifile.SBAT {
			sbat = true
			text := strings.TrimRight(string(data), "\x00\n") + "\n" + p.SBAT
			out.data, out.size = []byte(text), uint32(len(text))
		}
		list = append(list, out)
	}
	if !sbat {
		return nil, fmt.Errorf("uki: the stub has no section %s", ukifile.SBAT)
	}
	return list, nil
}

// layout gives sections their places: those of the stub stay where they are in
// memory, the others follow at multiples of the section alignment.
func layout(stub *pefile.File, sections []section) error {
	known := len(stub.Sections)
	last := sections[known-1]
	address := uint64(last.address) + uint64(last.size)
	offset := uint64(stub.SizeOfHeaders)
	for i := range sections {
		s := &sections[i]
		if i+1 < known && uint64(s.address)+uint64(s.size) > uint64(sections[i+1].address) {
			return fmt.Errorf("uki: section %s of %d bytes runs into %s", s.name, s.size, sections[i+1].name)
		}
		if i >= known {
			address = align(address, stub.SectionAlignment)
			s.address = uint32(address)
			address += uint64(s.size)
		}
		if len(s.data) > 0 {
			s.offset = uint32(offset)
			offset += align(uint64(len(s.data)), stub.FileAlignment)
		}
		if address > maxImage || offset > maxImage {
			return fmt.Errorf("uki: larger than %d MiB", maxImage>>20)
		}
	}
	return nil
}

// maxImage keeps offsets far from the 32 bits that they have.
const maxImage = 1 << 30

func align(n uint64, to uint32) uint64 { return (n + uint64(to) - 1) &^ (uint64(to) - 1) }
