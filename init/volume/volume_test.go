package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"quantavirt/internal/qverr"
)

// superblock is one as mkfs.ext4 makes it, as far as it is read here.
func superblock(label string, errors bool) []byte {
	sb := make([]byte, superSize)
	binary.LittleEndian.PutUint16(sb[0x38:], superMagic)
	binary.LittleEndian.PutUint16(sb[0x3A:], 1)
	if errors {
		binary.LittleEndian.PutUint16(sb[0x3A:], 3)
	}
	binary.LittleEndian.PutUint32(sb[0x4:], 256)
	binary.LittleEndian.PutUint32(sb[0x18:], 2)
	binary.LittleEndian.PutUint32(sb[0x5C:], compatHasJournal)
	copy(sb[0x68:], "0123456789abcdef")
	copy(sb[0x78:0x88], label)
	return sb
}

func fsImage(label string) []byte {
	return append(make([]byte, superOffset), superblock(label, false)...)
}

// gptDisk has partitions of the given names.
func gptDisk(names ...string) []byte {
	disk := make([]byte, 64<<10)
	disk[mbrMagic], disk[mbrMagic+1], disk[mbrEntry0+4] = 0x55, 0xAA, typeGPT
	table := disk[1024 : 1024+128*128]
	for i, name := range names {
		e := table[i*128:]
		copy(e, bytes.Repeat([]byte{1}, 16))
		copy(e[16:], []byte{0x78, 0x56, 0x34, 0x12, 0xBC, 0x9A, 0xF0, 0xDE, 1, 2, 3, 4, 5, 6, 7, byte(i)})
		for k, u := range utf16.Encode([]rune(name)) {
			binary.LittleEndian.PutUint16(e[56+2*k:], u)
		}
	}
	head := disk[512:1024]
	copy(head, gptSignature)
	binary.LittleEndian.PutUint32(head[12:], gptHeader)
	binary.LittleEndian.PutUint64(head[72:], 2)
	binary.LittleEndian.PutUint32(head[80:], 128)
	binary.LittleEndian.PutUint32(head[84:], 128)
	binary.LittleEndian.PutUint32(head[88:], crc32.ChecksumIEEE(table))
	binary.LittleEndian.PutUint32(head[16:], crc32.ChecksumIEEE(head[:gptHeader]))
	return disk
}

// machine is a made-up /sys and /dev.
type machine struct {
	t *testing.T
	Host
}

func newMachine(t *testing.T) machine {
	return machine{t, Host{Sys: t.TempDir(), Dev: t.TempDir()}}
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

// disk adds a device with partitions; content is that of each in turn, the
// disk's own first.
func (m machine) disk(name string, contents ...[]byte) {
	m.t.Helper()
	for i, data := range contents {
		dir, dev := filepath.Join(m.Sys, "devices", name), name
		if i > 0 {
			dev = fmt.Sprintf("%s%d", name, i)
			dir = filepath.Join(dir, dev)
			m.write(filepath.Join(dir, "partition"), fmt.Sprintln(i))
		}
		m.write(filepath.Join(dir, "size"), fmt.Sprintln(len(data)/512))
		m.write(filepath.Join(m.Dev, dev), string(data))
		link := filepath.Join(m.Sys, "class/block", dev)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Symlink(dir, link); err != nil {
			m.t.Fatal(err)
		}
	}
}

func TestScanAndChoose(t *testing.T) {
	mbr := make([]byte, 4096)
	mbr[mbrMagic], mbr[mbrMagic+1], mbr[mbrEntry0+4] = 0x55, 0xAA, 0x83
	binary.LittleEndian.PutUint32(mbr[mbrDiskID:], 0xCAFE1234)
	empty := make([]byte, 4096)
	for _, c := range []struct {
		name  string
		disks map[string][][]byte
		want  string
		found string // device and PARTUUID
		code  qverr.Code
	}{
		{"nothing", nil, "", "", qverr.NoEnt},
		{"whole disk", map[string][][]byte{"vda": {fsImage(Label)}, "vdb": {fsImage("other")}, "sr0": {fsImage(Label)}}, "", "vda ", 0},
		{"partition by label", map[string][][]byte{"vda": {gptDisk("boot", "data"), empty, fsImage(Label)}}, "", "vda2 12345678-9abc-def0-0102-030405060701", 0},
		{"partition by name", map[string][][]byte{"vda": {gptDisk("boot", Label), empty, fsImage("")}}, "", "vda2 12345678-9abc-def0-0102-030405060701", 0},
		{"disk with partitions is none", map[string][][]byte{"vda": {append(mbr[:1024:1024], superblock(Label, false)...), empty}}, "", "", qverr.NoEnt},
		{"partition of a DOS table", map[string][][]byte{"sda": {mbr, fsImage(Label)}}, "", "sda1 cafe1234-01", 0},
		{"not formatted", map[string][][]byte{"vda": {gptDisk(Label), empty}}, "", "", qverr.StrFormat},
		{"two", map[string][][]byte{"vda": {fsImage(Label)}, "sdb": {gptDisk("a"), fsImage(Label)}}, "", "", qverr.Config},
		{"two, one named", map[string][][]byte{"vda": {fsImage(Label)}, "sdb": {gptDisk("a"), fsImage(Label)}}, "partuuid=12345678-9ABC-def0-0102-030405060700", "sdb1 12345678-9abc-def0-0102-030405060700", 0},
		{"by UUID", map[string][][]byte{"vda": {fsImage("any")}}, "UUID=30313233-3435-3637-3839-616263646566", "vda ", 0},
		{"empty PARTUUID names nothing", map[string][][]byte{"vda": {fsImage(Label)}}, "PARTUUID=", "", qverr.NoEnt},
		{"no medium", map[string][][]byte{"sdc": {{}}}, "", "", qverr.NoEnt},
		{"tiny", map[string][][]byte{"vda": {empty[:512]}}, "", "", qverr.NoEnt},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			for name, contents := range c.disks {
				m.disk(name, contents...)
			}
			blocks, err := m.Scan()
			if err != nil {
				t.Fatal(err)
			}
			b, err := Choose(blocks, c.want)
			if qverr.CodeOf(err) != c.code {
				t.Fatalf("%+v: %v", blocks, err)
			}
			if c.code == 0 {
				if got := filepath.Base(b.Device) + " " + b.PartUUID; got != c.found || b.FS == nil || b.FS.Size != 1<<20 {
					t.Errorf("found %q, %+v", got, b.FS)
				}
			}
		})
	}
}

func TestUnreadableDiskHidesNoOther(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", fsImage(Label))
	m.disk("vdb", fsImage("x"))
	if err := os.Remove(filepath.Join(m.Dev, "vdb")); err != nil {
		t.Fatal(err)
	}
	blocks, err := m.Scan()
	if qverr.CodeOf(err) != qverr.StrIO || !strings.Contains(err.Error(), "vdb") {
		t.Errorf("%v", err)
	}
	if b, err := Choose(blocks, ""); err != nil || filepath.Base(b.Device) != "vda" {
		t.Errorf("%v %v", b, err)
	}
}

// A real file system, where its tool is at hand.
func TestRealFileSystem(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("no mkfs.ext4 here")
	}
	file := filepath.Join(t.TempDir(), "fs")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", "-L", Label, "-U", "11111111-2222-3333-4444-555555555555", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fs, ok := ParseExt4(data[superOffset : superOffset+superSize])
	if !ok || fs != (Ext4{Label: Label, UUID: "11111111-2222-3333-4444-555555555555", Size: 4 << 20, Journal: true}) {
		t.Errorf("%+v %v", fs, ok)
	}
}

func TestErrorsAreSeen(t *testing.T) {
	if fs, ok := ParseExt4(superblock(Label, true)); !ok || !fs.Errors {
		t.Errorf("%+v %v", fs, ok)
	}
}

func TestCheckWant(t *testing.T) {
	for want, good := range map[string]bool{"": true, "ram": true, "/dev/vda": true, "PARTUUID=x": true, "uuid=y": true, "vda": false, "LABEL=x": false, "UUID=": false} {
		if err := CheckWant(want); (err == nil) != good {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestAwaitLateDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.write(filepath.Join(m.Sys, "bus/usb/devices/usb1/class"), "")
		stick := filepath.Join(m.Sys, "bus/usb/devices/1-1:1.0/bInterfaceClass")
		events := make(chan struct{})
		go func() {
			time.Sleep(time.Second)
			m.write(stick, "08\n")
			events <- struct{}{}
			time.Sleep(4 * time.Second)
			m.disk("sda", fsImage(Label))
			events <- struct{}{}
		}()
		begin := time.Now()
		b, err := m.Await(t.Context(), "", quiet(m), events)
		if err != nil || filepath.Base(b.Device) != "sda" || time.Since(begin) != 5*time.Second {
			t.Errorf("%v %v after %v", b, err, time.Since(begin))
		}
	})
}

func quiet(m machine) *Probing {
	return &Probing{Sys: m.Sys}
}

func TestAwaitEnds(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		took  time.Duration
	}{
		"no bus":                {nil, 0},
		"virtio disk, loaded":   {map[string]string{"bus/virtio/devices/virtio0/modalias": "virtio:d00000002v00001AF4\n"}, 0},
		"USB host":              {map[string]string{"bus/usb/devices/usb1/class": ""}, quietBus},
		"USB keyboard":          {map[string]string{"bus/usb/devices/usb1/class": "", "bus/usb/devices/1-1:1.0/bInterfaceClass": "03\n"}, quietBus},
		"USB stick that sleeps": {map[string]string{"bus/usb/devices/1-1:1.0/bInterfaceClass": "08\n"}, quietDevice},
		"card reader":           {map[string]string{"class/mmc_host/mmc0/uevent": ""}, quietBus},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				for file, text := range c.files {
					m.write(filepath.Join(m.Sys, file), text)
				}
				begin := time.Now()
				_, err := m.Await(t.Context(), "", quiet(m), make(chan struct{}))
				if qverr.CodeOf(err) != qverr.NoEnt || time.Since(begin) != c.took {
					t.Errorf("%v after %v, want %v", err, time.Since(begin), c.took)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.write(filepath.Join(m.Sys, "bus/usb/devices/usb1/class"), "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := m.Await(ctx, "", quiet(m), make(chan struct{})); err == nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func FuzzParseExt4(f *testing.F) {
	f.Add(superblock(Label, false))
	f.Fuzz(func(t *testing.T, sb []byte) {
		if fs, ok := ParseExt4(sb); ok && (len(fs.Label) > 16 || fs.Size < 0) {
			t.Errorf("%+v", fs)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add(gptDisk("a", Label), int64(512))
	f.Fuzz(func(t *testing.T, disk []byte, sector int64) {
		if sector < 512 || sector > 1<<16 {
			return
		}
		parts, err := ParseTable(bytes.NewReader(disk), sector)
		if err == nil && len(parts) > maxEntries {
			t.Errorf("%d partitions", len(parts))
		}
	})
}
