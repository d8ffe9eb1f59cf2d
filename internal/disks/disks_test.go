package disks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/disks/disktest"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

// machine is a made-up /sys, /dev and /proc.
type machine struct {
	t *testing.T
	Host
}

func newMachine(t *testing.T) machine {
	return machine{t, Host{Sys: t.TempDir(), Dev: t.TempDir(), Proc: t.TempDir()}}
}

func (m machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// disk adds a disk below a directory of /sys/devices. attrs are its files
// there ("../" climbs); contents are its own and those of its partitions.
func (m machine) disk(name, below string, attrs map[string]string, contents ...[]byte) {
	m.t.Helper()
	dir := filepath.Join(m.Sys, "devices", below, "block", name)
	if strings.HasPrefix(name, "nvme") {
		dir = filepath.Join(m.Sys, "devices", below, name)
	}
	for i, data := range contents {
		at, dev := dir, name
		if i > 0 {
			dev = fmt.Sprintf("%sp%d", name, i)
			at = filepath.Join(dir, dev)
			m.write(filepath.Join(at, "partition"), fmt.Sprintln(i))
		}
		m.write(filepath.Join(at, "size"), fmt.Sprintln(len(data)/512))
		m.write(filepath.Join(m.Dev, dev), string(data))
		link := filepath.Join(m.Sys, "class/block", dev)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Symlink(at, link); err != nil {
			m.t.Fatal(err)
		}
	}
	for file, text := range attrs {
		if rest, ok := strings.CutPrefix(file, "device/"); ok { // a link to the directory that has block/
			file = filepath.Join("..", "..", rest)
			if strings.HasPrefix(name, "nvme") {
				file = filepath.Join("..", rest)
			}
			target := filepath.Dir(filepath.Join(dir, file))
			_ = os.Symlink(target, filepath.Join(dir, "device"))
		}
		m.write(filepath.Join(dir, file), text)
	}
}

func TestListIdentity(t *testing.T) {
	m := newMachine(t)
	blank := make([]byte, 8<<20)
	m.disk("nvme0n1", "pci0000:00/0000:00:04.0/nvme/nvme0", map[string]string{
		"nsid": "1\n", "wwid": "eui.0025385b71b0e8a2\n", "device/model": "Samsung SSD 980  \n", "device/serial": "S64DNX0R   \n", "queue/logical_block_size": "4096\n",
	}, blank)
	m.disk("sda", "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0", map[string]string{
		"device/vendor": "ATA     \n", "device/model": "WDC WD40\n", "device/vpd_pg80": "\x00\x80\x00\x08 WD-1234", "device/wwid": "naa.50014ee2\n",
		"../../../../../ata_port/ata3/port_no": "3\n", "queue/rotational": "1\n",
	}, blank)
	m.disk("sdb", "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host4/target4:0:0/4:0:0:0", map[string]string{
		"../../../../../../serial": "070B\x1b34\n", "removable": "1\n", "device/model": "Ultra Fit\n",
	}, blank)
	m.disk("sdc", "pci0000:00/0000:00:05.0/virtio2/host5/target5:0:0/5:0:0:1", map[string]string{"device/model": "HARDDISK\n", "ro": "1\n"}, blank)
	m.disk("vda", "pci0000:00/0000:00:06.0/virtio3", map[string]string{"serial": "lab-data\n", "device/vendor": "0x1af4\n"}, blank)
	m.disk("dm-0", "virtual", nil, blank)
	m.disk("sr0", "pci0000:00/0000:00:1f.2/ata4/host3/target3:0:0/3:0:0:0", nil, blank)

	got, err := m.List()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range got {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%s|%s|%d|%v|%v|%v|%s", filepath.Base(d.Device), d.Bus, d.Path, d.Model, d.Serial, d.WWN,
			d.SectorBytes, d.Rotational, d.Removable, d.ReadOnly, d.State))
	}
	want := []string{
		"nvme0n1|nvme|pci-0000:00:04.0-nvme-1|Samsung SSD 980|S64DNX0R|eui.0025385b71b0e8a2|4096|false|false|false|free",
		"sda|sata|pci-0000:00:1f.2-ata-3|ATA WDC WD40|WD-1234|naa.50014ee2|512|true|false|false|free",
		"sdb|usb|pci-0000:00:14.0-usb-0:2:1.0-scsi-0:0:0:0|Ultra Fit|070B34||512|false|true|false|free",
		"sdc|virtio|pci-0000:00:05.0-scsi-0:0:0:1|HARDDISK|||512|false|false|true|free",
		"vda|virtio|pci-0000:00:06.0||lab-data||512|false|false|false|free",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestListStates(t *testing.T) {
	full := func(head []byte) []byte { return append(bytes.Clone(head), make([]byte, 8<<20-len(head))...) }
	at := func(offset int, text string) []byte {
		b := make([]byte, 8<<20)
		copy(b[offset:], text)
		return b
	}
	erased := bytes.Repeat([]byte{0xFF}, 8<<20)
	for _, c := range []struct {
		name     string
		contents [][]byte
		state    string
		table    string
		fs       string // of the disk
		parts    string // name/file system of each
	}{
		{"zeroes", [][]byte{at(0, "")}, Free, "", "", ""},
		{"erased flash", [][]byte{erased}, Free, "", "", ""},
		{"smaller than both edges", [][]byte{make([]byte, 1<<20)}, Free, "", "", ""},
		{"ours", [][]byte{full(disktest.GPT("QV-BIOS", "QV-ESP", "QV-DATA")), at(0, ""), at(0, ""), disktest.Ext4("QV-DATA")}, Ours, "gpt", "", "QV-BIOS/ QV-ESP/ QV-DATA/ext4"},
		{"bare data volume", [][]byte{full(disktest.Ext4("QV-DATA"))}, Ours, "", "ext4", ""},
		{"somebody's ext4", [][]byte{full(disktest.Ext4("home"))}, Foreign, "", "ext4", ""},
		{"GPT without partitions", [][]byte{full(disktest.GPT())}, Foreign, "gpt", "", ""},
		{"MBR", [][]byte{full(disktest.MBR()), at(0, "XFSB")}, Foreign, "mbr", "", "/xfs"},
		{"LVM", [][]byte{at(512, "LABELONE")}, Foreign, "", "LVM2_member", ""},
		{"LUKS", [][]byte{at(0, "LUKS\xba\xbe")}, Foreign, "", "crypto_LUKS", ""},
		{"btrfs", [][]byte{at(0x10040, "_BHRfS_M")}, Foreign, "", "btrfs", ""},
		{"something unknown", [][]byte{at(1<<20+17, "x")}, Foreign, "", "", ""},
		{"only a backup GPT at the end", [][]byte{at(8<<20-512, "EFI PART")}, Foreign, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.disk("nvme0n1", "pci0000:00/0000:00:04.0/nvme/nvme0", nil, c.contents...)
			all, err := m.List()
			if err != nil || len(all) != 1 {
				t.Fatalf("%+v %v", all, err)
			}
			d := all[0]
			var parts []string
			for _, p := range d.Partitions {
				kind := ""
				if p.FileSystem != nil {
					kind = p.FileSystem.Type
				}
				parts = append(parts, p.Name+"/"+kind)
			}
			kind := ""
			if d.FileSystem != nil {
				kind = d.FileSystem.Type
			}
			if d.State != c.state || d.Table != c.table || kind != c.fs || strings.Join(parts, " ") != c.parts || d.Problem != nil {
				t.Errorf("%s, table %q, file system %q, partitions %q, problem %+v", d.State, d.Table, kind, parts, d.Problem)
			}
		})
	}
}

// A disk that cannot be read is never free, and hides no other.
func TestUnreadableDisk(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", "pci0000:00/0000:00:04.0/virtio0", nil, make([]byte, 8<<20))
	m.disk("vdb", "pci0000:00/0000:00:05.0/virtio1", nil, make([]byte, 8<<20))
	if err := os.Remove(filepath.Join(m.Dev, "vda")); err != nil {
		t.Fatal(err)
	}
	all, err := m.List()
	if err != nil || len(all) != 2 || all[0].State != Foreign || all[0].Problem == nil || all[1].State != Free {
		t.Errorf("%+v %v", all, err)
	}
}

func TestUses(t *testing.T) {
	m := newMachine(t)
	m.disk("nvme0n1", "pci0000:00/0000:00:04.0/nvme/nvme0", nil, disktest.GPT("a", "b"), make([]byte, 4096), make([]byte, 4096))
	m.write(filepath.Join(m.Proc, "self/mounts"), m.Dev+"/nvme0n1p1 /srv ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
	m.write(filepath.Join(m.Proc, "swaps"), "Filename Type Size\n"+m.Dev+"/nvme0n1p2 partition 1\n")
	m.write(filepath.Join(m.Sys, "class/block/nvme0n1/holders/md127/x"), "")
	all, err := m.List()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if want := []string{"md127", "mounted at /srv", "swap"}; !slices.Equal(all[0].UsedBy, want) {
		t.Errorf("used by %q, want %q", all[0].UsedBy, want)
	}
}

func TestSelect(t *testing.T) {
	all := []Disk{
		{Device: "/dev/nvme0n1", Serial: "A", SizeBytes: 500, Path: "pci-1", WWN: "w"}, {Device: "/dev/sda", Serial: "B", SizeBytes: 900},
		{Device: "/dev/sdb", Serial: "TWIN", SizeBytes: 400}, {Device: "/dev/sdc", Serial: "TWIN", SizeBytes: 400},
		{Device: "/dev/sdd", SizeBytes: 100, Removable: true}, {Device: "/dev/sde", SizeBytes: 9999, ReadOnly: true}, {Device: "/dev/sdf", SizeBytes: 9998, Bus: "usb"},
	}
	for selector, want := range map[string]any{
		"/dev/sda": "/dev/sda", "serial:A": "/dev/nvme0n1", "path:pci-1": "/dev/nvme0n1", "wwn:w": "/dev/nvme0n1", "largest": "/dev/sda",
		"smallest": qverr.Config, "serial:TWIN": qverr.Config, "serial:C": qverr.NoEnt, "/dev/sdx": qverr.NoEnt,
		"": qverr.Inval, "sda": qverr.Inval, "serial:": qverr.Inval, "biggest": qverr.Inval, "/dev/": qverr.Inval, "label:x": qverr.Inval,
	} {
		d, err := Select(all, selector)
		code, bad := want.(qverr.Code)
		if bad && !errors.Is(err, code) || !bad && (err != nil || d.Device != want) {
			t.Errorf("%q: %v %v, want %v", selector, d, err, want)
		}
	}
	if _, err := Select(nil, Largest); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
}

// A real file system, where its tool is at hand.
func TestRealFileSystem(t *testing.T) {
	mkfs := hosttool.Path(t, "mkfs.ext4")
	file := filepath.Join(t.TempDir(), "fs")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", "-L", LabelData, "-U", "11111111-2222-3333-4444-555555555555", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fs, ok := ParseExt4(data[SuperOffset : SuperOffset+SuperSize])
	if !ok || fs.Label != LabelData || fs.UUID != "11111111-2222-3333-4444-555555555555" || fs.Size != 4<<20 || !fs.Journal || !fs.Clean || fs.Errors {
		t.Errorf("%+v %v", fs, ok)
	}
	if why := fs.CheckWanted(time.Now()); why != "" {
		t.Errorf("a new file system should be checked because %s", why)
	}
}

func TestCheckWanted(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	put16 := func(at int, v uint16) func([]byte) {
		return func(sb []byte) { binary.LittleEndian.PutUint16(sb[at:], v) }
	}
	put32 := func(at int, v uint32) func([]byte) {
		return func(sb []byte) { binary.LittleEndian.PutUint32(sb[at:], v) }
	}
	for _, c := range []struct {
		name   string
		change []func([]byte)
		want   string
	}{
		{"clean", nil, ""},
		{"errors", []func([]byte){put16(0x3A, 3)}, "errors"},
		{"mounted", []func([]byte){put16(0x3A, 0)}, "not unmounted"},
		{"journal to be played", []func([]byte){put32(0x60, 4)}, "not unmounted"},
		{"often mounted", []func([]byte){put16(0x34, 20), put16(0x36, 20)}, "often"},
		{"not yet often", []func([]byte){put16(0x34, 19), put16(0x36, 20)}, ""},
		{"long ago", []func([]byte){put32(0x40, 900_000), put32(0x44, 100_000)}, "long ago"},
		{"lately", []func([]byte){put32(0x40, 900_001), put32(0x44, 100_000)}, ""},
	} {
		sb := disktest.Super(LabelData)
		for _, change := range c.change {
			change(sb)
		}
		fs, ok := ParseExt4(sb)
		if why := fs.CheckWanted(now); !ok || (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
}

func TestIdentifyLabels(t *testing.T) {
	b := make([]byte, 64<<10)
	copy(b[82:], "FAT32   ")
	copy(b[71:], "QV-ESP     ")
	copy(b[67:], "\x78\x56\x34\x12")
	fs, ok, err := Identify(bytes.NewReader(b))
	if err != nil || !ok || fs != (FileSystem{"vfat", "QV-ESP", "1234-5678"}) {
		t.Errorf("%+v %v %v", fs, ok, err)
	}
	if fs, ok, err := Identify(bytes.NewReader(nil)); err != nil || ok {
		t.Errorf("%+v %v %v", fs, ok, err)
	}
	// A FAT boot sector has the magic of an MBR and no table.
	b[0x1FE], b[0x1FF], b[0x1BE] = 0x55, 0xAA, 'x'
	if table, err := ParseTable(bytes.NewReader(b), 512); err != nil || table.Kind != "" {
		t.Errorf("%+v %v", table, err)
	}
}

func FuzzParseExt4(f *testing.F) {
	f.Add(disktest.Super(LabelData))
	f.Fuzz(func(t *testing.T, sb []byte) {
		if fs, ok := ParseExt4(sb); ok && (len(fs.Label) > 16 || fs.Size < 0) {
			t.Errorf("%+v", fs)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add(disktest.GPT("a", LabelData), int64(512))
	f.Add(disktest.MBR(), int64(512))
	f.Fuzz(func(t *testing.T, disk []byte, sector int64) {
		if sector < 512 || sector > 1<<16 {
			return
		}
		table, err := ParseTable(bytes.NewReader(disk), sector)
		if err == nil && len(table.Parts) > maxEntries {
			t.Errorf("%d partitions", len(table.Parts))
		}
	})
}

func FuzzIdentify(f *testing.F) {
	f.Add(disktest.Ext4(LabelData))
	f.Fuzz(func(t *testing.T, disk []byte) {
		fs, _, err := Identify(bytes.NewReader(disk))
		if err != nil || strings.ContainsAny(fs.Label, "\x00\x1b\n") {
			t.Errorf("%q %v", fs.Label, err)
		}
	})
}
