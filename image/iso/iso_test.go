package iso

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/hosttool"
)

var when = time.Date(2026, 1, 15, 14, 32, 2, 0, time.UTC)

const efi = 2 << 20

// disc is a disk with some files on it.
func disc() (Disc, map[string]string) {
	want := map[string]string{
		"EFI/BOOT/BOOTX64.EFI": "loader", "EFI/Linux/qv-00000001.efi": strings.Repeat("uki ", 10_000),
		"loader/loader.conf": "timeout 0\n", "empty": "", "qv/00000001/initramfs": strings.Repeat("i", 2048),
		"a/b/c/d/e": "deep", strings.Repeat("n", maxShown): "long name",
	}
	for i := range 60 {
		want[fmt.Sprintf("many/of the same beginning %d.conf", i)] = fmt.Sprint("content ", i)
	}
	d := Disc{Label: "QUANTAVIRT", Time: when, Size: 4 << 20, BIOS: bytes.Repeat([]byte("boot"), 1000), EFI: efi}
	at := int64(efi + 100*SectorSize)
	for name, data := range want {
		d.Files = append(d.Files, File{Name: name, Offset: at, Size: int64(len(data))})
		at += int64(sectors(len(data))) * SectorSize
	}
	return d, want
}

// TestWrite has xorriso read the disc.
func TestWrite(t *testing.T) {
	d, want := disc()
	path := filepath.Join(t.TempDir(), "disc.iso")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(d.Size); err != nil {
		t.Fatal(err)
	}
	for _, x := range d.Files {
		if _, err := f.WriteAt([]byte(want[x.Name]), x.Offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Write(f); err != nil {
		t.Fatal(err)
	}
	report := hosttool.Run(t, "xorriso", "-abort_on", "WARNING", "-indev", path, "-toc", "-pvd_info", "-report_el_torito", "plain", "-find", "/", "-exec", "lsdl")
	for _, line := range []string{
		"Volume id    : 'QUANTAVIRT'", "El Torito catalog  : 19  1",
		"El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4 ", "El Torito boot img :   2  UEFI  y   none  0x0000  0x00      1        1024",
		"System Id    : ", "Creation Time: 2026011514320200", "Jan 15  2026 '/loader/loader.conf'",
	} {
		if !strings.Contains(report, line) {
			t.Errorf("xorriso does not say %q:\n%s", line, report)
		}
	}
	out := t.TempDir()
	hosttool.Run(t, "xorriso", "-abort_on", "WARNING", "-osirrox", "on", "-indev", path, "-extract", "/", out)
	for name, data := range want {
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || string(got) != data {
			t.Errorf("%s: %d bytes, want %d; %v", name, len(got), len(data), err)
		}
	}
}

// The boot image finds itself by its table.
func TestBootImage(t *testing.T) {
	d, _ := disc()
	image := make(memory, d.Size)
	if err := d.Write(image); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	catalog := image[sectorCatalog*SectorSize:]
	at := le.Uint32(catalog[32+8:])
	boot := image[int(at)*SectorSize:]
	if le.Uint32(boot[8:]) != 16 || le.Uint32(boot[12:]) != at || le.Uint32(boot[16:]) != uint32(len(d.BIOS)) {
		t.Errorf("table: %x", boot[8:24])
	}
	var sum uint32
	for i := 64; i < len(d.BIOS); i += 4 {
		sum += le.Uint32(boot[i:])
	}
	if le.Uint32(boot[20:]) != sum || !bytes.Equal(boot[64:len(d.BIOS)], d.BIOS[64:]) {
		t.Error("checksum or content of the boot image")
	}
	if !bytes.Equal(image[:16*SectorSize], make([]byte, 16*SectorSize)) || !bytes.Equal(image[Limit:], make([]byte, d.Size-Limit)) {
		t.Error("wrote where the partition table or the partitions are")
	}
}

type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

func TestWriteRefuses(t *testing.T) {
	file := func(name string) []File { return []File{{Name: name, Offset: efi, Size: 1}} }
	for name, change := range map[string]func(*Disc){
		"label":             func(d *Disc) { d.Label = "quanta virt" },
		"no label":          func(d *Disc) { d.Label = "" },
		"half a sector":     func(d *Disc) { d.Size += 512 },
		"ESP outside":       func(d *Disc) { d.EFI = d.Size },
		"ESP in the gap":    func(d *Disc) { d.EFI = Limit - SectorSize },
		"year":              func(d *Disc) { d.Time = time.Date(2156, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no boot image":     func(d *Disc) { d.BIOS = nil },
		"large boot image":  func(d *Disc) { d.BIOS = make([]byte, Limit) },
		"file not aligned":  func(d *Disc) { d.Files = []File{{Name: "a", Offset: efi + 512, Size: 1}} },
		"file outside":      func(d *Disc) { d.Files = []File{{Name: "a", Offset: efi, Size: d.Size}} },
		"no name":           func(d *Disc) { d.Files = file("a//b") },
		"parent":            func(d *Disc) { d.Files = file("../b") },
		"long name":         func(d *Disc) { d.Files = file(strings.Repeat("n", maxShown+1)) },
		"twice":             func(d *Disc) { d.Files = append(file("a"), file("a")...) },
		"file as directory": func(d *Disc) { d.Files = append(file("a"), file("a/b")...) },
		"many directories": func(d *Disc) {
			for i := range 200 {
				d.Files = append(d.Files, file(fmt.Sprintf("dir%d/a", i))...)
			}
		},
	} {
		d, _ := disc()
		change(&d)
		if err := d.Write(make(memory, 8<<20)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
