package pefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
)

func image() []byte {
	return petest.Image(0x400, petest.Section{Name: ".text", Data: "code"}, petest.Section{Name: ".long", Data: strings.Repeat("x", 0x1234)})
}

func open(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func TestOpen(t *testing.T) {
	f, err := open(image())
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) != 2 || f.Sections[1].Name != ".long" || f.Sections[1].Address != 0x2000 || f.Sections[1].Size != 0x1234 {
		t.Fatalf("sections %+v", f.Sections)
	}
	if data, err := io.ReadAll(f.Sections[0].Reader()); err != nil || string(data) != "code" {
		t.Errorf("data %q, %v", data, err)
	}
	if f.SizeOfHeaders != 0x400 || f.SizeOfImage != 0x4000 || f.End() != f.Size() || f.Symbols || f.Debug {
		t.Errorf("headers %+v", f)
	}
}

// Offsets of the fields that the table changes, for the layout of petest.
const (
	coff     = 0x44
	optional = coff + 20
	sections = optional + 240
)

func TestMalformed(t *testing.T) {
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
	}
	for _, c := range []struct {
		name, says string
		change     func([]byte) []byte
	}{
		{"empty", "beyond the end", func([]byte) []byte { return nil }},
		{"not MZ", "MZ", put16(0, 0x1234)},
		{"header beyond the file", "beyond the end", put32(0x3c, 0xfffffff0)},
		{"no signature", "no PE signature", put32(0x3c, 0x48)},
		{"other machine", "machine 0xaa64", put16(coff, 0xaa64)},
		{"no sections", "0 sections", put16(coff+2, 0)},
		{"too many sections", "97 sections", put16(coff+2, 97)},
		{"section table beyond headers", "beyond the headers", put16(coff+2, 20)},
		{"short optional header", "no room", put16(coff+16, 100)},
		{"PE32", "want PE32+", put16(optional, 0x10b)},
		{"directories", "data directories", put32(optional+108, 0xffffffff)},
		{"file alignment", "alignment", put32(optional+36, 3)},
		{"section alignment", "alignment", put32(optional+32, 0x100)},
		{"headers larger than the file", "headers of", put32(optional+60, 0x7ffffe00)},
		{"image too small", "beyond the image", put32(optional+56, 0x1000)},
		{"address", "overlaps", put32(sections+40+12, 0x1000)},
		{"address not aligned", "not aligned", put32(sections+40+12, 0x2100)},
		{"size in memory", "beyond the image", put32(sections+40+8, 0xffffffff)},
		{"data in the headers", "overlap", put32(sections+20, 0x200)},
		{"data twice", "overlap", put32(sections+40+20, 0x400)},
		{"data beyond the file", "the file at", put32(sections+40+16, 0xfffffe00)},
		{"file cut", "the file at", func(b []byte) []byte { return b[:len(b)-0x200] }},
		{"certificates not at the end", "certificate table", put32(optional+112+4*8+4, 8)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(c.change(image()))
			if !errors.Is(err, qverr.Inval) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestReadError(t *testing.T) {
	b := image()
	if _, err := Open(bytes.NewReader(b[:sections]), int64(len(b))); !errors.Is(err, qverr.IO) {
		t.Errorf("got %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(image())
	f.Add(petest.Image(0x200))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := open(b)
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Errorf("bytes in memory gave %v", err)
			}
			return
		}
		for _, s := range file.Sections {
			if n, err := io.Copy(io.Discard, s.Reader()); err != nil || n != int64(min(s.Size, s.Data.Size)) {
				t.Errorf("section %q: read %d of %d, %v", s.Name, n, s.Size, err)
			}
		}
	})
}
