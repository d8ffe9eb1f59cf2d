package machine

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"

	"quantavirt/internal/qverr"
)

// maxUnpacked bounds an unpacked kernel with its relocations: KERNEL_IMAGE_SIZE
// of Linux is 1 GiB, and real ones have 40 to 80 MiB.
const maxUnpacked = 512 << 20

// unpackers knows the formats of packed kernels by how they begin. Those of other
// formats unpack themselves.
var unpackers = []struct {
	magic string
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"\x28\xb5\x2f\xfd", openZstd},
	{"\x1f\x8b\x08", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxUnpacked))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// UnpackedSize is how many bytes Unpack will write for a kernel, at most 512 MiB.
// QV_ERR_UNSUPPORTED: it is none that can be unpacked, as an ELF file needs not be
// and some compressions are not known here; QV_ERR_INVAL: it is no kernel.
func UnpackedSize(r io.ReaderAt) (int64, error) {
	_, size, err := packed(r)
	return size, err
}

// packed finds the packed kernel in a bzImage and the size of what is in it,
// which Linux's build appends (arch/x86/boot/compressed/Makefile).
func packed(r io.ReaderAt) (*io.SectionReader, int64, error) {
	k, err := parseKernel(r)
	if err != nil {
		return nil, 0, err
	}
	if k.bz == nil {
		return nil, 0, qverr.New(qverr.Unsupported, "the kernel is not packed")
	}
	const sizeField = 4
	p := k.bz.payload
	end := k.bz.kernelOff + int64(k.bz.kernelSize)
	if p.off <= k.bz.kernelOff || p.size <= sizeField || p.off+p.size > end {
		return nil, 0, qverr.New(qverr.Unsupported, "the bzImage does not say where its packed kernel is")
	}
	var last [sizeField]byte
	if err := readExact(r, last[:], p.off+p.size-sizeField); err != nil {
		return nil, 0, err
	}
	size := int64(binary.LittleEndian.Uint32(last[:]))
	if size < elfHeaderSize || size > maxUnpacked {
		return nil, 0, qverr.New(qverr.Unsupported, "an unpacked kernel of %d bytes", size)
	}
	return io.NewSectionReader(r, p.off, p.size-sizeField), size, nil
}

// Unpack writes the kernel that the bzImage r holds packed: the ELF file vmlinux,
// and behind it the tables of its relocations. A machine starts it sooner than the
// bzImage, and moves it at random as that does (Options.Unpacked). The caller must
// hold the result against CheckUnpacked. Errors are those of UnpackedSize, and
// QV_ERR_IO when w fails.
func Unpack(r io.ReaderAt, w io.Writer) error {
	section, size, err := packed(r)
	if err != nil {
		return err
	}
	var head [4]byte
	if err := readExact(section, head[:], 0); err != nil {
		return err
	}
	for _, u := range unpackers {
		if !bytes.HasPrefix(head[:], []byte(u.magic)) {
			continue
		}
		in, err := u.open(section)
		if err != nil {
			return qverr.New(qverr.Inval, "unpack the kernel: %w", err)
		}
		defer in.Close()
		return copyExact(w, in, size)
	}
	return qverr.New(qverr.Unsupported, "the kernel is packed in a way that is not known here (it begins with % x)", head)
}

// copyExact copies size bytes, of which the reader must have neither more nor less.
func copyExact(w io.Writer, r io.Reader, size int64) error {
	out := &errWriter{w: w}
	n, err := io.Copy(out, io.LimitReader(r, size+1))
	switch {
	case out.err != nil:
		return qverr.New(qverr.IO, "store the unpacked kernel: %w", out.err)
	case err != nil:
		return qverr.New(qverr.Inval, "unpack the kernel: %w", err)
	case n != size:
		return qverr.New(qverr.Inval, "unpack the kernel: it has not the %d bytes that it should have", size)
	}
	return nil
}

// errWriter remembers that the writer failed, not the reader.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	e.err = err
	return n, err
}
