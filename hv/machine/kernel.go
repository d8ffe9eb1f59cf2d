package machine

import (
	"encoding/binary"
	"errors"
	"io"

	"quantavirt/internal/qverr"
)

// kernelFile is what the header of a kernel file says, checked.
type kernelFile struct {
	bz  *bzHeader
	elf *elfFile
}

// CheckKernel tells whether r is a kernel that a machine can start: a bzImage
// for x86-64 or an ELF file with a PVH note. Its errors carry QV_ERR_INVAL, or
// QV_ERR_IO when r cannot be read.
func CheckKernel(r io.ReaderAt) error {
	_, err := parseKernel(r)
	return err
}

func parseKernel(r io.ReaderAt) (kernelFile, error) {
	var magic [4]byte
	if err := readExact(r, magic[:], 0); err != nil {
		return kernelFile{}, err
	}
	if binary.LittleEndian.Uint32(magic[:]) == elfMagic {
		f, err := parseELF(r)
		if err == nil && f.entry == 0 {
			err = notKernel("the ELF file has no PVH note: build the kernel with CONFIG_PVH, or use its bzImage")
		}
		return kernelFile{elf: f}, err
	}
	h, err := parseBz(r)
	return kernelFile{bz: h}, err
}

func notKernel(format string, args ...any) error {
	return qverr.New(qverr.Inval, "not a kernel that can be started: "+format, args...)
}

// readExact fills p from off. A file that ends before is no kernel.
func readExact(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return notKernel("the file ends at byte %d, before all of it was read", off+int64(n))
	}
	return qverr.New(qverr.IO, "read the kernel at byte %d: %w", off, err)
}
