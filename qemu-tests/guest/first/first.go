// Package first has the smallest guest.
package first

import (
	"bytes"
	"encoding/binary"
)

// Kernel is an ELF kernel for the PVH boot protocol whose first
// instructions write "!" and a line feed to the serial port: it shows when a
// monitor has got so far that guest code runs.
func Kernel() []byte {
	const (
		load    = 0x1000000 // where the code goes
		codeOff = 0x1000
		noteOff = 0x200
	)
	code := []byte{
		0xBA, 0xF8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
		0xB0, '!', 0xEE, // mov al, '!'; out dx, al
		0xB0, '\n', 0xEE, // mov al, 10; out dx, al
		0xF4, 0xEB, 0xFD, // hlt; jmp to hlt
	}
	// An ELF note: lengths of name and value, type XEN_ELFNOTE_PHYS32_ENTRY.
	note := binary.LittleEndian.AppendUint32(nil, 4)
	note = binary.LittleEndian.AppendUint32(note, 8)
	note = binary.LittleEndian.AppendUint32(note, 18)
	note = append(note, "Xen\x00"...)
	note = binary.LittleEndian.AppendUint64(note, load)

	image := make([]byte, codeOff+len(code))
	copy(image[codeOff:], code)
	copy(image[noteOff:], note)
	var head bytes.Buffer
	head.WriteString("\x7fELF\x02\x01\x01")
	head.Write(make([]byte, 9))
	le := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&head, binary.LittleEndian, v) // to memory: never fails
		}
	}
	// Executable for x86-64; two program headers of 56 bytes after this one of 64.
	le(uint16(2), uint16(62), uint32(1), uint64(load), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(2), uint16(64), uint16(0), uint16(0))
	le(uint32(1), uint32(5), uint64(codeOff), uint64(load), uint64(load), uint64(len(code)), uint64(len(code)), uint64(0x1000))
	le(uint32(4), uint32(4), uint64(noteOff), uint64(0), uint64(0), uint64(len(note)), uint64(len(note)), uint64(4))
	copy(image, head.Bytes())
	return image
}
