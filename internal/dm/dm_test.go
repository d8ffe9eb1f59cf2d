package dm

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

func TestTable(t *testing.T) {
	c := Crypt{Device: "/dev/vda3", Offset: 16 << 20, Size: 1 << 30, Cipher: "aes-xts-plain64", Key: []byte{0xAB, 1}, SectorSize: 4096}
	spec := c.table()
	params, _, _ := strings.Cut(string(spec[specSize:]), "\x00")
	if params != "aes-xts-plain64 ab01 0 /dev/vda3 32768 1 sector_size:4096" {
		t.Errorf("parameters %q", params)
	}
	if len(spec)%8 != 0 || spec[len(spec)-1] != 0 || binary.NativeEndian.Uint64(spec[specLength:]) != 1<<21 || !strings.HasPrefix(string(spec[specType:]), "crypt\x00") {
		t.Errorf("target %x", spec)
	}
}

func TestRefusals(t *testing.T) {
	good := Crypt{Device: "/dev/null", Size: 4096, SectorSize: 4096}
	for name, c := range map[string]Crypt{
		strings.Repeat("x", nameSize): good,
		"odd offset":                  {Offset: 1, Size: 4096, SectorSize: 4096},
		"odd size":                    {Size: 4097, SectorSize: 4096},
		"nothing":                     {SectorSize: 512},
	} {
		if _, err := c.Open(name, ""); !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	sys := t.TempDir()
	for dev, name := range map[string]string{"dm-0": "other\n", "dm-1": "qv-data\n"} {
		dir := filepath.Join(sys, "class/block", dev, "dm")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if dev, ok := Find(sys, "qv-data"); !ok || dev != "/dev/dm-1" {
		t.Errorf("%s %v", dev, ok)
	}
	if _, ok := Find(sys, "qv"); ok {
		t.Error("a part of a name is no name")
	}
}
