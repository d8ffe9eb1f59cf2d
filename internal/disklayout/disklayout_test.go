package disklayout

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/fat32"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

var when = time.Date(2026, 1, 15, 14, 32, 2, 0, time.UTC)

// grub has the form of GRUB's files for BIOS.
func grub() BIOS {
	b := BIOS{Boot: bytes.Repeat([]byte{0xaa}, 512), Core: bytes.Repeat([]byte{0xcc}, 100_000)}
	binary.LittleEndian.PutUint64(b.Boot[kernelSector:], 1)
	b.Boot[driveCheck] = 0xeb
	b.Boot[510], b.Boot[511] = 0x55, 0xaa
	binary.LittleEndian.PutUint16(b.Core[blocklist+8:], uint16((len(b.Core)-1)/512))
	binary.LittleEndian.PutUint16(b.Core[blocklist+10:], loadSegment)
	return b
}

func testUKI() []byte {
	return petest.Image(512, petest.Section{Name: ukifile.Cmdline, Data: `console=tty0 a="b c" d=\e`},
		petest.Section{Name: ukifile.Microcode, Data: "codes"}, petest.Section{Name: ukifile.Initrd, Data: "initial"},
		petest.Section{Name: ukifile.Linux, Data: "kernel"})
}

func system(n uint32) Slot {
	image := testUKI()
	info := slot.Info{Sequence: n, Version: "1", Build: "virtual", WrittenAt: when, State: slot.StateGood}
	return Slot{Info: info, UKI: bytes.NewReader(image), Size: int64(len(image))}
}

func esp(t *testing.T) ESP {
	t.Helper()
	files, err := BootFiles([]byte("systemd-boot"), 7, system(7), system(12345678))
	if err != nil {
		t.Fatal(err)
	}
	return ESP{Serial: 0xcafe0001, Time: when, Files: files}
}

func write(t *testing.T, d Disk) (string, []fat32.Extent) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A disk that had other things on it.
	if _, err := f.WriteAt(bytes.Repeat([]byte("old "), 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(d.Size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("old "), 1<<18), d.Size-1<<20); err != nil {
		t.Fatal(err)
	}
	extents, err := d.Format(f, grub(), esp(t))
	if err != nil {
		t.Fatal(err)
	}
	return path, extents
}

// TestFormat has sgdisk, fsck.vfat and mtools look at disks of all kinds.
func TestFormat(t *testing.T) {
	for _, d := range []Disk{
		{Size: MinSize(MinESP), SectorSize: 512, ESP: MinESP},
		{Size: 8<<30 + 512, SectorSize: 512, ESP: ESPInstalled, Data: true},
		{Size: 5 << 40, SectorSize: 512, ESP: ESPInstalled, Data: true}, // more sectors than an MBR can count
	} {
		t.Run(fmt.Sprint(d.Size), func(t *testing.T) {
			d.IDs = RandomIDs()
			path, extents := write(t, d)
			if out := hosttool.Run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v:\n%s", out)
			}
			parts, err := d.Partitions()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				info := hosttool.Run(t, "sgdisk", "-i", fmt.Sprint(p.Number), path)
				for _, want := range []string{
					"GUID code: " + strings.ToUpper(p.Type.String()), "unique GUID: " + strings.ToUpper(p.ID.String()),
					fmt.Sprintf("First sector: %d ", p.First), fmt.Sprintf("Last sector: %d ", p.Last), "'" + p.Name + "'",
				} {
					if !strings.Contains(info, want) {
						t.Errorf("partition %d lacks %q:\n%s", p.Number, want, info)
					}
				}
			}
			checkESP(t, path, parts[1], extents)
			checkBootCode(t, path)
		})
	}
}

func checkESP(t *testing.T, path string, p Partition, extents []fat32.Extent) {
	t.Helper()
	disk, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	volume := filepath.Join(t.TempDir(), "esp.img")
	out, err := os.Create(volume)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, io.NewSectionReader(disk, p.Offset, min(p.Size, 64<<20)))
	if err != nil || out.Truncate(p.Size) != nil || out.Close() != nil {
		t.Fatal("copy the ESP: ", err)
	}
	hosttool.Run(t, "fsck.vfat", "-n", volume)
	for name, want := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": "systemd-boot", "EFI/systemd/systemd-bootx64.efi": "systemd-boot",
		"loader/loader.conf":        "timeout 0\neditor no\n",
		"EFI/Linux/qv-00000007.efi": string(testUKI()), "EFI/Linux/qv-12345678.efi": string(testUKI()),
		"qv/12345678/vmlinuz":   "kernel",
		"qv/12345678/initramfs": "codes\x00\x00\x00initial",
		"qv/12345678/cmdline":   block("cmdline=console=tty0 a=\"b c\" d=\\\\e\n"),
		"grub/grubenv":          block("qv_default=00000007\nqv_try=\nqv_tries=0\n"),
	} {
		if got := hosttool.Run(t, "mtype", "-i", volume, "::/"+name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	info, err := slot.ParseInfo([]byte(hosttool.Run(t, "mtype", "-i", volume, "::/qv/00000007/slot.json")))
	if err != nil || info.Sequence != 7 || info.State != slot.StateGood {
		t.Errorf("slot.json: %+v, %v", info, err)
	}
	for _, x := range extents {
		if x.Name == pathLoader {
			got := make([]byte, x.Size)
			if _, err := disk.ReadAt(got, x.Offset); err != nil || string(got) != loaderConf {
				t.Errorf("%+v holds %q, %v", x, got, err)
			}
		}
	}
}

func block(lines string) string {
	text := "# GRUB Environment Block\n" + lines
	return text + strings.Repeat("#", 1024-len(text))
}

// checkBootCode follows the way of the BIOS: from the first sector to the core
// image, and from its first sector to the rest.
func checkBootCode(t *testing.T, path string) {
	t.Helper()
	disk, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	read := func(lba uint64, n int) []byte {
		b := make([]byte, n)
		if _, err := disk.ReadAt(b, int64(lba)*512); err != nil {
			t.Fatal(err)
		}
		return b
	}
	le := binary.LittleEndian
	first := read(0, 512)
	if first[0] != 0xaa || first[driveCheck] != 0x90 || first[446+4] != 0xee {
		t.Errorf("the first sector: %x", first)
	}
	lba := le.Uint64(first[kernelSector:])
	core := read(lba, 512)
	want := grub().Core
	if next := le.Uint64(core[blocklist:]); next != lba+1 || lba != 2048 {
		t.Errorf("the core image is at %d and goes on at %d", lba, next)
	}
	rest := read(lba+1, int(le.Uint16(core[blocklist+8:]))*512)
	if !bytes.Equal(core[:blocklist], want[:blocklist]) || !bytes.Equal(bytes.TrimRight(rest, "\x00"), want[512:]) {
		t.Error("the core image is not what was given")
	}
}

func TestFormat4Kn(t *testing.T) {
	d := Disk{Size: 3 << 30, SectorSize: 4096, ESP: ESPInstalled, Data: true, IDs: RandomIDs()}
	path, _ := write(t, d)
	parts, err := d.Partitions()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	read := func(at int64, n int) []byte {
		b := make([]byte, n)
		if _, err := disk.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	le := binary.LittleEndian
	head := read(4096, 92)
	if string(head[:8]) != "EFI PART" || string(read(d.Size-4096, 8)) != "EFI PART" {
		t.Fatal("no header in the second or the last sector of 4096 bytes")
	}
	if other := le.Uint64(head[32:]); other != uint64(d.Size/4096-1) {
		t.Errorf("backup header in sector %d", other)
	}
	if first := le.Uint64(read(2*4096+128+32, 8)); first != uint64(parts[1].First) || parts[1].First != 512 {
		t.Errorf("the ESP begins at sector %d", first)
	}
	if !bytes.Equal(read(0, 440), make([]byte, 440)) {
		t.Error("boot code on a disk that no BIOS reads")
	}
	if n := le.Uint16(read(parts[1].Offset+11, 2)); n != 4096 {
		t.Errorf("FAT with sectors of %d", n)
	}
}

func TestFormatIsReproducible(t *testing.T) {
	d := Disk{Size: MinSize(MinESP), SectorSize: 512, ESP: MinESP, IDs: DerivedIDs("image 1")}
	one, _ := write(t, d)
	two, _ := write(t, d)
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("two disks of the same input differ, %v", err)
	}
	first, second := RandomIDs(), RandomIDs()
	if DerivedIDs("image 1") == DerivedIDs("image 2") || d.IDs.Disk == d.IDs.ESP || first == second {
		t.Error("identifiers are not unique")
	}
}

func TestPartitionsRefuse(t *testing.T) {
	for name, d := range map[string]Disk{
		"too small":          {Size: MinSize(MinESP) - 1<<20, SectorSize: 512, ESP: MinESP},
		"no room for data":   {Size: MinSize(MinESP), SectorSize: 512, ESP: MinESP, Data: true},
		"small ESP":          {Size: 1 << 30, SectorSize: 512, ESP: 33 << 20},
		"small ESP, 4Kn":     {Size: 1 << 30, SectorSize: 4096, ESP: 200 << 20},
		"ESP not aligned":    {Size: 1 << 30, SectorSize: 512, ESP: 64<<20 + 512},
		"sectors":            {Size: 1 << 30, SectorSize: 2048, ESP: 64 << 20},
		"part of a sector":   {Size: 1<<30 + 100, SectorSize: 512, ESP: 64 << 20},
		"nothing and no ESP": {SectorSize: 512},
	} {
		want := qverr.Inval
		if name == "too small" || name == "no room for data" {
			want = qverr.NoSpc
		}
		if parts, err := d.Partitions(); qverr.CodeOf(err) != want {
			t.Errorf("%s: %+v, %v", name, parts, err)
		}
	}
}

func TestForeignBootCodeIsRefused(t *testing.T) {
	for name, change := range map[string]func(*BIOS){
		"short boot.img":  func(b *BIOS) { b.Boot = b.Boot[:511] },
		"other boot code": func(b *BIOS) { b.Boot[driveCheck] = 0 },
		"no core image":   func(b *BIOS) { b.Core = nil },
		"other core":      func(b *BIOS) { b.Core[blocklist+10] = 0 },
		"cut core":        func(b *BIOS) { b.Core = b.Core[:50_000] },
	} {
		boot := grub()
		change(&boot)
		if boot.check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestBootFilesRefuse(t *testing.T) {
	broken := system(1)
	broken.UKI = strings.NewReader("MZ")
	for name, err := range map[string]error{
		"no loader":       second(BootFiles(nil, 1, system(1))),
		"slot 0":          second(BootFiles([]byte("x"), 0, system(0))),
		"large number":    second(BootFiles([]byte("x"), slot.MaxSequence+1, system(slot.MaxSequence+1))),
		"slot that isn't": second(BootFiles([]byte("x"), 2, system(1))),
		"no UKI":          second(BootFiles([]byte("x"), 1, broken)),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := GRUBCmdline("a\nqv=1"); err == nil {
		t.Error("a command line of two lines: taken")
	}
}

func second(_ any, err error) error { return err }

// A target that fails at any write leaves no partition table, old or new, as
// the first sector comes last.
func TestFormatReportsWriteErrors(t *testing.T) {
	d := Disk{Size: MinSize(MinESP), SectorSize: 512, ESP: MinESP, IDs: IDs{Disk: uuid.Max}}
	for n := 1; ; n++ {
		target := &failing{data: bytes.Repeat([]byte{0x55, 0xaa}, int(d.Size/2)), left: n}
		_, err := d.Format(target, grub(), esp(t))
		if err == nil {
			if n < 20 {
				t.Errorf("only %d writes", n)
			}
			return
		}
		if target.data[511] == 0xaa {
			t.Fatalf("write %d failed: there is a first sector", n)
		}
	}
}

type failing struct {
	data []byte
	left int
}

func (f *failing) WriteAt(p []byte, at int64) (int, error) {
	if f.left == 0 {
		return 0, io.ErrClosedPipe
	}
	f.left--
	return copy(f.data[at:], p), nil
}
