// Package ring keeps the last bytes that a console printed, in a file of fixed
// size that outlives the process that writes it.
//
// The file has a header of 64 bytes and then the bytes in a circle: "QVRING1\n",
// the size of the circle, and the number of bytes ever written, little-endian
// 64-bit each. Bytes are written before the header that counts them: after a kill
// at any moment the ring holds what the header says. After a crash of the host
// the newest bytes may be older ones; nothing else is lost.
package ring

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// DefaultSize is the usual size of the circle in bytes.
const DefaultSize = 256 << 10

const (
	magic      = "QVRING1\n"
	headerSize = 64
	minSize    = 4096
	maxSize    = 64 << 20
)

// Create opens the ring file at path, keeping what an earlier process wrote, and
// makes it anew when it is not there, damaged or of another size. Its space is
// reserved: a full volume fails here and not while a guest prints. The caller
// must be its only writer, or pass the file to it.
func Create(path string, size int64) (*os.File, error) {
	if size < minSize || size > maxSize {
		return nil, qverr.New(qverr.Inval, "console ring of %d bytes", size)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "console ring: %w", err)
	}
	if got, _, err := readHeader(f); err == nil && got == size {
		return f, nil
	}
	if err := initialize(f, size); err != nil {
		f.Close()
		return nil, qverr.New(qverr.CodeOf(err), "console ring %s: %w", path, err)
	}
	return f, nil
}

func initialize(f *os.File, size int64) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, headerSize+size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.Truncate(headerSize + size)
	}
	if err != nil {
		return err
	}
	return writeHeader(f, size, 0)
}

func writeHeader(w io.WriterAt, size int64, pos uint64) error {
	header := make([]byte, 24)
	copy(header, magic)
	binary.LittleEndian.PutUint64(header[8:], uint64(size))
	binary.LittleEndian.PutUint64(header[16:], pos)
	_, err := w.WriteAt(header, 0)
	return err
}

func readHeader(r io.ReaderAt) (size int64, pos uint64, err error) {
	var header [24]byte
	if _, err := r.ReadAt(header[:], 0); err != nil {
		return 0, 0, qverr.New(qverr.IO, "console ring: %w", err)
	}
	size = int64(binary.LittleEndian.Uint64(header[8:]))
	if string(header[:8]) != magic || size < minSize || size > maxSize {
		return 0, 0, qverr.New(qverr.IO, "console ring is damaged")
	}
	return size, binary.LittleEndian.Uint64(header[16:]), nil
}

// Read returns what the ring file at path keeps, oldest byte first. It may be
// called while another process writes: what is overwritten meanwhile is left out.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "console ring: %w", err)
	}
	defer f.Close()
	size, pos, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(uint64(size), pos))
	from := pos - uint64(len(data))
	if err := readCircle(f, size, from, data); err != nil {
		return nil, qverr.New(qverr.IO, "console ring %s: %w", path, err)
	}
	if _, now, err := readHeader(f); err == nil && now > pos {
		// The writer may be up to one write ahead of its header as well; that
		// much can still be newer than its place.
		data = data[min(now-pos, uint64(len(data))):]
	}
	return data, nil
}

// readCircle reads the bytes with the numbers from on.
func readCircle(r io.ReaderAt, size int64, from uint64, into []byte) error {
	for len(into) > 0 {
		at := int64(from % uint64(size))
		n := min(int64(len(into)), size-at)
		if _, err := r.ReadAt(into[:n], headerSize+at); err != nil {
			return err
		}
		into, from = into[n:], from+uint64(n)
	}
	return nil
}

func writeCircle(w io.WriterAt, size int64, pos uint64, data []byte) error {
	if skip := int64(len(data)) - size; skip > 0 {
		data, pos = data[skip:], pos+uint64(skip)
	}
	for len(data) > 0 {
		at := int64(pos % uint64(size))
		n := min(int64(len(data)), size-at)
		if _, err := w.WriteAt(data[:n], headerSize+at); err != nil {
			return err
		}
		data, pos = data[n:], pos+uint64(n)
	}
	return nil
}
