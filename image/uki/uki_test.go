package uki

import (
	"bytes"
	"debug/pe"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/ukifile"
)

// parts are those of a small image on a stub of ours.
func parts() Parts {
	return Parts{
		Stub: petest.Image(0x400,
			petest.Section{Name: ".text", Data: "code"},
			petest.Section{Name: ".sbat", Data: "sbat,1\nstub,1\n\x00"},
			petest.Section{Name: ".reloc", Data: "relocations"}),
		Kernel:    bytes.Repeat([]byte("kernel "), 1000),
		Initrd:    bytes.Repeat([]byte("initrd"), 777),
		Cmdline:   "quiet panic=10",
		OSRelease: "ID=quantavirt\n",
		Uname:     "6.12",
		SBAT:      "quantavirt,1\n",
	}
}

// debianParts are parts on systemd's stub.
func debianParts(t *testing.T) Parts {
	t.Helper()
	root, ok := tools.Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	p := parts()
	var err error
	if p.Stub, err = os.ReadFile(root.Path("usr", "lib", "systemd", "boot", "efi", "linuxx64.efi.stub")); err != nil {
		t.Fatal(err)
	}
	p.Microcode = []byte("microcode")
	return p
}

func TestMake(t *testing.T) {
	p := parts()
	image, err := Make(p)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ukifile.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		".text": "code", ".reloc": "relocations", ukifile.SBAT: "sbat,1\nstub,1\nquantavirt,1\n",
		ukifile.Linux: string(p.Kernel), ukifile.Initrd: string(p.Initrd), ukifile.Cmdline: p.Cmdline,
		ukifile.OSRelease: p.OSRelease, ukifile.Uname: p.Uname,
	} {
		r, err := f.Section(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%s holds %.40q, %v", name, got, err)
		}
	}
	if _, err := f.Section(ukifile.Microcode); err == nil {
		t.Error("has microcode, though none was given")
	}
	if f.End() != f.Size() {
		t.Errorf("%d bytes after the last section", f.Size()-f.End())
	}
	// debug/pe as a second opinion on what the headers say.
	second, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	h := second.OptionalHeader.(*pe.OptionalHeader64)
	if second.TimeDateStamp != 0 || h.CheckSum != 0 || h.SizeOfImage%h.SectionAlignment != 0 {
		t.Errorf("headers %+v %+v", second.FileHeader, h)
	}
	if last := second.Sections[len(second.Sections)-1]; last.Name != ukifile.Linux || h.SizeOfImage-last.VirtualAddress != 0x2000 {
		t.Errorf("last section %+v, image of %#x bytes", last, h.SizeOfImage)
	}
	if again, err := Make(p); err != nil || !bytes.Equal(again, image) {
		t.Errorf("the same parts gave other bytes (%v)", err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, says string
		change     func(*Parts)
	}{
		{"no kernel", "must not be empty", func(p *Parts) { p.Kernel = nil }},
		{"no command line", "must not be empty", func(p *Parts) { p.Cmdline = "" }},
		{"long command line", "the kernel takes 2047", func(p *Parts) { p.Cmdline = strings.Repeat("x", 2048) }},
		{"NUL", "NUL", func(p *Parts) { p.Cmdline = "quiet\x00init=/bin/sh" }},
		{"no stub", "stub", func(p *Parts) { p.Stub = []byte("MZ") }},
		{"stub with bytes at its end", "after its last section", func(p *Parts) { p.Stub = append(p.Stub, 0) }},
		{"stub without .sbat", ".sbat", func(p *Parts) { p.Stub = petest.Image(0x400, petest.Section{Name: ".text", Data: "x"}) }},
		{".sbat too large", "runs into .reloc", func(p *Parts) { p.SBAT = strings.Repeat("x", 0x1000) }},
		{"no room in the headers", "room for 4 sections, 8 are needed", func(p *Parts) {
			p.Stub = petest.Image(0x200, petest.Section{Name: ".a", Data: "x"}, petest.Section{Name: ".b", Data: "x"}, petest.Section{Name: ".sbat", Data: "x"})
		}},
		{"a section twice", "two sections", func(p *Parts) {
			p.Stub = petest.Image(0x400, petest.Section{Name: ".linux", Data: "x"}, petest.Section{Name: ".sbat", Data: "x"})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts()
			c.change(&p)
			if _, err := Make(p); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

// objdump, which is not ours, finds the sections where our reader does.
func TestObjdump(t *testing.T) {
	image, err := Make(debianParts(t))
	if err != nil {
		t.Fatal(err)
	}
	f, err := ukifile.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.efi")
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	out := hosttool.Run(t, "objdump", "-h", path)
	base := imageBase(t, image)
	var seen []string
	for line := range strings.Lines(out) {
		field := strings.Fields(line) // index, name, size, VMA, LMA, file offset, alignment
		if len(field) != 7 || !strings.HasPrefix(field[1], ".") {
			continue
		}
		s := f.Sections[len(seen)]
		seen = append(seen, field[1])
		if field[1] != s.Name || number(t, field[2]) != uint64(s.Size) ||
			number(t, field[3])-base != uint64(s.Address) || number(t, field[5]) != uint64(s.Data.Offset) {
			t.Errorf("objdump says %q, the reader %+v", strings.TrimSpace(line), s)
		}
	}
	const want = ".text .rodata .data .sbat .sdmagic .reloc .osrel .uname .cmdline .ucode .initrd .linux"
	if got := strings.Join(seen, " "); got != want || len(seen) != len(f.Sections) {
		t.Errorf("sections %s, want %s", got, want)
	}
}

func imageBase(t *testing.T, image []byte) uint64 {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	return f.OptionalHeader.(*pe.OptionalHeader64).ImageBase
}

func number(t *testing.T, hex string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
