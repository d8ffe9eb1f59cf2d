package ukifile

import (
	"io"
	"strings"

	"quantavirt/internal/pefile"
	"quantavirt/internal/qverr"
)

// Names of sections.
const (
	Linux     = ".linux"
	OSRelease = ".osrel"
	Cmdline   = ".cmdline"
	Initrd    = ".initrd"
	Microcode = ".ucode"
	Splash    = ".splash"
	DTB       = ".dtb"
	Uname     = ".uname"
	SBAT      = ".sbat"
	PCRSig    = ".pcrsig"
	PCRPKey   = ".pcrpkey"
	Profile   = ".profile"
)

// MaxText is the largest section that Text returns.
const MaxText = 64 << 10

// File is an open unified kernel image.
type File struct {
	*pefile.File
	sections map[string]pefile.Section
}

// Open reads the layout of an image of size bytes. Kernel and initrd must be
// there; whoever needs another section asks for it.
func Open(r io.ReaderAt, size int64) (*File, error) {
	pe, err := pefile.Open(r, size)
	if err != nil {
		return nil, err
	}
	f := &File{File: pe, sections: make(map[string]pefile.Section, len(pe.Sections))}
	for _, s := range pe.Sections {
		if _, twice := f.sections[s.Name]; twice {
			return nil, unusable("two sections %q", s.Name)
		}
		f.sections[s.Name] = s
	}
	if _, ok := f.sections[Profile]; ok {
		return nil, unusable("it has several profiles")
	}
	for _, name := range []string{Linux, Initrd} {
		if _, err := f.Section(name); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Section returns a section that is completely in the file.
func (f *File) Section(name string) (*io.SectionReader, error) {
	s, ok := f.sections[name]
	switch {
	case !ok:
		return nil, unusable("it has no section %s", name)
	case s.Size == 0:
		return nil, unusable("section %s is empty", name)
	case s.Data.Size < s.Size:
		return nil, unusable("section %s of %d bytes has %d in the file", name, s.Size, s.Data.Size)
	}
	return s.Reader(), nil
}

// Kernel returns the kernel, a bzImage.
func (f *File) Kernel() (*io.SectionReader, error) { return f.Section(Linux) }

// InitrdSize is the number of bytes that Initrd returns.
func (f *File) InitrdSize() int64 {
	return aligned(int64(f.sections[Microcode].Size)) + int64(f.sections[Initrd].Size)
}

// Initrd returns the initial file systems as the kernel gets them: microcode,
// if there is any, padded to four bytes, then the initramfs.
func (f *File) Initrd() (io.Reader, error) {
	initrd, err := f.Section(Initrd)
	if err != nil {
		return nil, err
	}
	if _, ok := f.sections[Microcode]; !ok {
		return initrd, nil
	}
	microcode, err := f.Section(Microcode)
	if err != nil {
		return nil, err
	}
	padding := strings.NewReader("\x00\x00\x00"[:aligned(microcode.Size())-microcode.Size()])
	return io.MultiReader(microcode, padding, initrd), nil
}

// aligned rounds up to four bytes, as each initial file system begins.
func aligned(n int64) int64 { return (n + 3) &^ 3 }

// Text returns a section of text of at most MaxText bytes, without a NUL and
// white space at its end.
func (f *File) Text(name string) (string, error) {
	r, err := f.Section(name)
	if err != nil {
		return "", err
	}
	if r.Size() > MaxText {
		return "", unusable("section %s has %d bytes, want at most %d", name, r.Size(), MaxText)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", qverr.New(qverr.IO, "read section %s: %w", name, err)
	}
	s := strings.TrimRight(string(text), "\x00 \t\r\n")
	if strings.ContainsRune(s, 0) {
		return "", unusable("section %s holds a NUL", name)
	}
	return s, nil
}

// Release returns the fields of the .osrel section (os-release(5)).
func (f *File) Release() (map[string]string, error) {
	text, err := f.Text(OSRelease)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			fields[name] = strings.Trim(value, `"'`)
		}
	}
	return fields, nil
}

func unusable(format string, args ...any) error {
	return qverr.New(qverr.Inval, "not a usable unified kernel image: "+format, args...)
}
