// Package microcode makes the archive from which the kernel takes processor
// microcode before anything else (Documentation/arch/x86/microcode.rst, "Early
// load microcode"): an uncompressed cpio archive with a file for each vendor.
package microcode

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/u-root/mkuimage/cpio"
)

// Files of the archive. Their directories are left out: the early loader does
// not need them, and the kernel, which unpacks the archive a second time into
// its root, then passes the files over instead of keeping them in memory.
const (
	intelFile = "kernel/x86/microcode/GenuineIntel.bin"
	amdFile   = "kernel/x86/microcode/AuthenticAMD.bin"
)

// Archive makes the archive from the files of Intel and AMD, each in the order
// given. Updates of Intel that are there twice are taken once.
func Archive(intel, amd [][]byte) ([]byte, error) {
	var updates bytes.Buffer
	seen := map[string]bool{}
	for i, file := range intel {
		list, err := split(file)
		if err != nil {
			return nil, fmt.Errorf("microcode: file %d of Intel: %w", i, err)
		}
		for _, u := range list {
			if !seen[string(u)] {
				seen[string(u)] = true
				updates.Write(u)
			}
		}
	}
	for i, file := range amd {
		if len(file) < 4 || binary.LittleEndian.Uint32(file) != amdMagic {
			return nil, fmt.Errorf("microcode: file %d of AMD is none", i)
		}
	}
	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	records := []cpio.Record{
		cpio.StaticFile(amdFile, string(bytes.Join(amd, nil)), 0o444),
		cpio.StaticFile(intelFile, updates.String(), 0o444),
	}
	for _, r := range records {
		if err := w.WriteRecord(cpio.MakeReproducible(r)); err != nil {
			return nil, fmt.Errorf("microcode: %w", err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("microcode: %w", err)
	}
	return out.Bytes(), nil
}

// amdMagic begins a file of AMD (linux, arch/x86/kernel/cpu/microcode/amd.c).
const amdMagic = 0x00414d44

// Header of an update (Intel SDM volume 3A, section 11.11.1).
const (
	header      = 48
	sizeAt      = 32 // total size, in bytes; 0 stands for oldSize
	oldSize     = 2048
	versionOne  = 1
	granularity = 1024
)

// split cuts a file of Intel into updates.
func split(file []byte) ([][]byte, error) {
	var list [][]byte
	for len(file) > 0 {
		if len(file) < header || binary.LittleEndian.Uint32(file) != versionOne {
			return nil, fmt.Errorf("no update %d bytes before its end", len(file))
		}
		size := int64(binary.LittleEndian.Uint32(file[sizeAt:]))
		if size == 0 {
			size = oldSize
		}
		if size%granularity != 0 || size > int64(len(file)) {
			return nil, fmt.Errorf("an update of %d bytes with %d left", size, len(file))
		}
		var sum uint32
		for i := int64(0); i < size; i += 4 {
			sum += binary.LittleEndian.Uint32(file[i:])
		}
		if sum != 0 {
			return nil, fmt.Errorf("an update of %d bytes fails its checksum", size)
		}
		list = append(list, file[:size:size])
		file = file[size:]
	}
	return list, nil
}
