package machine

import (
	"bytes"
	"encoding/binary"
	"io"
)

// ELF64 for x86-64 (System V ABI), as far as a kernel needs it.
const (
	elfMagic      = 0x464c457f
	elfHeaderSize = 64
	elfSegSize    = 56
	elfMaxSegs    = 64
	elfMaxNotes   = 64 << 10

	segLoad = 1
	segNote = 4

	// The note of Xen's and PVH's entry (xen/include/public/elfnote.h).
	noteXen      = "Xen\x00"
	notePVHEntry = 18

	elfMaxAddr = 1 << 32
)

// elfFile has the segments of an ELF kernel and its PVH entry, 0 when it has none.
type elfFile struct {
	loads   []elfSegment
	entry   uint64
	start   uint64 // the ELF header's entry
	end     uint64 // first physical address after all segments
	fileEnd int64  // first byte of the file after segments and section headers
}

type elfSegment struct {
	off              int64
	paddr            uint64
	fileSize, memory uint64
}

func parseELF(r io.ReaderAt) (*elfFile, error) {
	var h [elfHeaderSize]byte
	if err := readExact(r, h[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(h[:]) != elfMagic || h[4] != 2 || h[5] != 1 || le.Uint16(h[18:]) != 62 {
		return nil, notKernel("the ELF file is not for x86-64")
	}
	if kind := le.Uint16(h[16:]); kind != 2 && kind != 3 {
		return nil, notKernel("the ELF file is of type %d, not executable", kind)
	}
	off, size, count := le.Uint64(h[32:]), le.Uint16(h[54:]), int(le.Uint16(h[56:]))
	if size != elfSegSize || count == 0 || count > elfMaxSegs || off > elfMaxAddr {
		return nil, notKernel("%d program headers of %d bytes at %#x", count, size, off)
	}
	table := make([]byte, count*elfSegSize)
	if err := readExact(r, table, int64(off)); err != nil {
		return nil, err
	}
	f := &elfFile{start: le.Uint64(h[24:])}
	if sections := le.Uint64(h[40:]); sections <= elfMaxAddr {
		f.fileEnd = int64(sections) + int64(le.Uint16(h[58:]))*int64(le.Uint16(h[60:]))
	}
	for i := range count {
		if err := f.addSegment(r, table[i*elfSegSize:]); err != nil {
			return nil, err
		}
	}
	if len(f.loads) == 0 {
		return nil, notKernel("the ELF file has nothing to load")
	}
	if f.entry != 0 && !f.holds(f.entry) {
		return nil, notKernel("its entry %#x is not in what it loads", f.entry)
	}
	return f, nil
}

func (f *elfFile) addSegment(r io.ReaderAt, p []byte) error {
	le := binary.LittleEndian
	kind, off, paddr := le.Uint32(p), le.Uint64(p[8:]), le.Uint64(p[24:])
	fileSize, memSize := le.Uint64(p[32:]), le.Uint64(p[40:])
	switch kind {
	case segLoad:
		if memSize == 0 {
			return nil
		}
		if off > elfMaxAddr || fileSize > memSize || memSize > elfMaxAddr || paddr < highStart || paddr > elfMaxAddr {
			return notKernel("segment of %#x bytes at %#x, %#x of them at %#x of the file", memSize, paddr, fileSize, off)
		}
		if fileSize > 0 {
			var last [1]byte
			if err := readExact(r, last[:], int64(off+fileSize-1)); err != nil {
				return err
			}
		}
		f.loads = append(f.loads, elfSegment{int64(off), paddr, fileSize, memSize})
		f.end = max(f.end, paddr+memSize)
		f.fileEnd = max(f.fileEnd, int64(off+fileSize))
	case segNote:
		if off > elfMaxAddr || fileSize > elfMaxNotes {
			return notKernel("notes of %#x bytes at %#x", fileSize, off)
		}
		notes := make([]byte, fileSize)
		if err := readExact(r, notes, int64(off)); err != nil {
			return err
		}
		if entry, ok := pvhNote(notes); ok {
			f.entry = entry
		}
	}
	return nil
}

func (f *elfFile) holds(addr uint64) bool {
	for _, s := range f.loads {
		if addr >= s.paddr && addr-s.paddr < s.fileSize {
			return true
		}
	}
	return false
}

// pvhNote finds the 32-bit entry address among ELF notes.
func pvhNote(notes []byte) (uint64, bool) {
	le := binary.LittleEndian
	for len(notes) >= 12 {
		nameSize, descSize, kind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		notes = notes[12:]
		nameEnd := (nameSize + 3) &^ 3
		if nameEnd > uint64(len(notes)) {
			return 0, false
		}
		name := notes[:nameSize]
		notes = notes[nameEnd:]
		if descSize > uint64(len(notes)) {
			return 0, false
		}
		if kind == notePVHEntry && bytes.Equal(name, []byte(noteXen)) {
			switch descSize {
			case 4:
				return uint64(le.Uint32(notes)), true
			case 8:
				return le.Uint64(notes), true
			}
		}
		notes = notes[min((descSize+3)&^3, uint64(len(notes))):]
	}
	return 0, false
}
