package fat32

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

var when = time.Date(2026, 1, 15, 14, 32, 2, 0, time.UTC)

// random is data that differs from place to place.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// files are of all kinds of name and size.
func files() []File {
	list := []File{
		Bytes("EFI/BOOT/BOOTX64.EFI", random(1, 100_000)),
		Bytes("EFI/Linux/qv-00000001.efi", random(2, 5<<20)),
		Bytes("EFI/Linux/qv-00000002+3.efi", random(3, 511)),
		Bytes("loader/loader.conf", []byte("timeout 0\n")),
		Bytes("empty", nil),
		Bytes("grub/grub.cfg", random(4, 512)),
		Bytes("A.B", random(5, 4096)),
		Bytes("A.b.c", random(6, 1)),
		Bytes(".hidden", random(7, 3)),
		Bytes("name with blanks.text", random(8, 2049)),
		Bytes(strings.Repeat("n", 255), random(9, 70)),
	}
	for i := range 60 {
		list = append(list, Bytes(fmt.Sprintf("many/of-the-same-beginning-%d.conf", i), random(uint64(100+i), i*100)))
	}
	return list
}

func make32(t *testing.T, v Volume) (string, []Extent) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The target is not blank, as that of an installation.
	noise := bytes.Repeat([]byte("not blank "), 100_000)
	for at := int64(0); at < min(v.Size, 20<<20); at += int64(len(noise)) {
		if _, err := f.WriteAt(noise, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(v.Size); err != nil {
		t.Fatal(err)
	}
	extents, err := Format(f, v)
	if err != nil {
		t.Fatal(err)
	}
	return path, extents
}

// TestFormat has dosfstools check the volume and mtools read every file.
func TestFormat(t *testing.T) {
	for _, c := range []struct {
		size   int64
		sector int
	}{{34 << 20, 512}, {64<<20 + 300, 512}, {261 << 20, 512}, {2 << 30, 512}, {300 << 20, 4096}, {2 << 30, 4096}, {9 << 30, 512}} {
		t.Run(fmt.Sprintf("%d of %d", c.size, c.sector), func(t *testing.T) {
			v := Volume{Label: "QV-ESP", Serial: 0x12345678, Size: c.size, SectorSize: c.sector, Hidden: 4096, Time: when, Files: files()}
			path, extents := make32(t, v)
			report := hosttool.Run(t, "fsck.vfat", "-n", "-v", path)
			for _, bad := range []string{"wrong", "differ", "Free cluster", "Orphaned", "Dirty"} {
				if strings.Contains(report, bad) {
					t.Errorf("fsck.vfat:\n%s", report)
				}
			}
			if !strings.Contains(report, "32 bit entries") {
				t.Errorf("fsck.vfat takes it for something else:\n%s", report)
			}
			checkFiles(t, path, v.Files, extents)
			listing := hosttool.Run(t, "mdir", "-i", path, "::/loader")
			if !strings.Contains(listing, "QV-ESP") || !strings.Contains(listing, "1234-5678") || !strings.Contains(listing, "2026-01-15  14:32") {
				t.Errorf("label, serial or time:\n%s", listing)
			}
		})
	}
}

func checkFiles(t *testing.T, image string, files []File, extents []Extent) {
	t.Helper()
	out := t.TempDir()
	hosttool.Run(t, "mcopy", "-s", "-n", "-i", image, "::/", out)
	volume, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	for i, f := range files {
		in, _ := f.Open()
		want, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, f.Name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d; %v", f.Name, len(got), len(want), err)
		}
		if x := extents[i]; x.Name != f.Name || x.Size != f.Size || x.Offset%align != 0 {
			t.Errorf("%s: extent %+v", f.Name, x)
		}
		direct := make([]byte, f.Size)
		if _, err := volume.ReadAt(direct, extents[i].Offset); err != nil || !bytes.Equal(direct, want) {
			t.Errorf("%s is not where its extent says: %v", f.Name, err)
		}
	}
}

func TestFormatIsReproducible(t *testing.T) {
	v := Volume{Label: "QV-ESP", Serial: 7, Size: 34 << 20, SectorSize: 512, Time: when, Files: files()}
	read := func(v Volume) []byte {
		image := make(memory, v.Size)
		if _, err := Format(image, v); err != nil {
			t.Fatal(err)
		}
		return image
	}
	first := read(v)
	if !bytes.Equal(first, read(v)) {
		t.Error("two volumes of the same input differ")
	}
	v.Serial++
	if bytes.Equal(first, read(v)) {
		t.Error("the serial number changes nothing")
	}
}

// memory is a disk in memory.
type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[at:], p), nil
}

func TestFormatRefuses(t *testing.T) {
	good := Volume{Label: "QV-ESP", Size: 34 << 20, SectorSize: 512, Time: when}
	for name, change := range map[string]func(*Volume){
		"too small":             func(v *Volume) { v.Size = 32 << 20 },
		"too small for 4 KiB":   func(v *Volume) { v.Size, v.SectorSize = 200<<20, 4096 },
		"sector size":           func(v *Volume) { v.SectorSize = 1024 },
		"no label":              func(v *Volume) { v.Label = "" },
		"long label":            func(v *Volume) { v.Label = "TWELVE CHARS" },
		"lower-case label":      func(v *Volume) { v.Label = "esp" },
		"year":                  func(v *Volume) { v.Time = time.Unix(0, 0) },
		"full":                  func(v *Volume) { v.Files = []File{Bytes("x", make([]byte, 34<<20))} },
		"twice":                 func(v *Volume) { v.Files = []File{Bytes("a", nil), Bytes("A", nil)} },
		"file and directory":    func(v *Volume) { v.Files = []File{Bytes("a", nil), Bytes("a/b", nil)} },
		"directory and file":    func(v *Volume) { v.Files = []File{Bytes("a/b", nil), Bytes("a", nil)} },
		"spelled in two ways":   func(v *Volume) { v.Files = []File{Bytes("a/b", nil), Bytes("A/c", nil)} },
		"no name":               func(v *Volume) { v.Files = []File{Bytes("", nil)} },
		"leading slash":         func(v *Volume) { v.Files = []File{Bytes("/a", nil)} },
		"name of a device":      func(v *Volume) { v.Files = []File{Bytes("a:b", nil)} },
		"parent":                func(v *Volume) { v.Files = []File{Bytes("../a", nil)} },
		"not ASCII":             func(v *Volume) { v.Files = []File{Bytes("ä", nil)} },
		"negative size":         func(v *Volume) { v.Files = []File{{Name: "a", Size: -1}} },
		"shorter than it says":  func(v *Volume) { f := Bytes("a", []byte("abc")); f.Size = 4; v.Files = []File{f} },
		"longer than it says":   func(v *Volume) { f := Bytes("a", []byte("abc")); f.Size = 2; v.Files = []File{f} },
		"file cannot be opened": func(v *Volume) { v.Files = []File{{Name: "a", Size: 1, Open: missing}} },
	} {
		v := good
		change(&v)
		want := map[string]qverr.Code{
			"full": qverr.NoSpc, "shorter than it says": qverr.IO, "longer than it says": qverr.IO, "file cannot be opened": qverr.NoEnt,
		}[name]
		if want == 0 {
			want = qverr.Inval
		}
		if _, err := Format(make(memory, 40<<20), v); qverr.CodeOf(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := Format(make(memory, 40<<20), good); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}

func missing() (io.ReadCloser, error) { return nil, os.ErrNotExist }

// A target that fails at any write makes Format fail, and leaves no boot sector.
func TestFormatReportsWriteErrors(t *testing.T) {
	v := Volume{Label: "QV-ESP", Size: 34 << 20, SectorSize: 512, Time: when, Files: files()[:5]}
	counting := &failing{memory: make(memory, v.Size), left: 1 << 30}
	if _, err := Format(counting, v); err != nil {
		t.Fatal(err)
	}
	total := 1<<30 - counting.left
	for n := range total {
		target := &failing{memory: make(memory, v.Size), left: n}
		if _, err := Format(target, v); !errors.Is(err, errFull) {
			t.Fatalf("write %d of %d failed: %v", n, total, err)
		}
		if target.memory[510] == 0x55 {
			t.Fatalf("write %d of %d failed, but there is a boot sector", n, total)
		}
	}
}

var errFull = errors.New("no")

type failing struct {
	memory
	left int
}

func (f *failing) WriteAt(p []byte, at int64) (int, error) {
	if f.left == 0 {
		return 0, errFull
	}
	f.left--
	return f.memory.WriteAt(p, at)
}
