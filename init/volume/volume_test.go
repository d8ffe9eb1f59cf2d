package volume

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/internal/qverr"
)

// disk is a block device of a made-up machine.
type disk struct {
	name, label, uevent string
	formatted           bool
}

func system(t *testing.T, disks ...disk) System {
	t.Helper()
	s := System{Sys: t.TempDir(), Dev: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(s.Sys, "class/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		dir := filepath.Join(s.Sys, "class/block", d.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4096)
		if d.formatted {
			binary.LittleEndian.PutUint16(data[1024+0x38:], 0xEF53)
			copy(data[1024+0x78:1024+0x88], d.label)
		}
		for file, text := range map[string]string{filepath.Join(dir, "size"): "8\n", filepath.Join(dir, "uevent"): d.uevent, filepath.Join(s.Dev, d.name): string(data)} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name  string
		disks []disk
		want  string
		code  qverr.Code
	}{
		{"no disk", nil, "", 0},
		{"whole disk", []disk{{"vda", Label, "DEVTYPE=disk\n", true}}, "vda", 0},
		{"partition", []disk{{"sda", "", "", false}, {"sda1", "boot", "", true}, {"sda2", Label, "PARTUUID=1234\n", true}}, "sda2", 0},
		{"another label", []disk{{"vda", "QV-DATA2", "", true}}, "", 0},
		{"not formatted", []disk{{"vda", Label, "PARTNAME=QV-DATA\n", false}}, "", 0},
		{"two", []disk{{"vda", Label, "", true}, {"vdb", Label, "", true}}, "", qverr.Exist},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := system(t, c.disks...).Find()
			if qverr.CodeOf(err) != c.code {
				t.Fatalf("error %v, want code %d", err, c.code)
			}
			name := ""
			if got != nil {
				name = got.Name
			}
			if name != c.want {
				t.Errorf("found %q, want %q", name, c.want)
			}
			if name == "sda2" && got.PartUUID != "1234" {
				t.Errorf("PARTUUID %q", got.PartUUID)
			}
		})
	}
}

func FuzzExt4Label(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Fuzz(func(t *testing.T, super []byte) {
		if label, ok := ext4Label(super); ok && len(label) > 16 {
			t.Errorf("label of %d bytes", len(label))
		}
	})
}
