package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const elfMagic = "\x7fELF and so on"

// tree makes a root with one kernel and returns the root.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const dir = "usr/lib/modules/6.1-a/"
	write("boot/vmlinuz-6.1-a", bzImage("6.1-a (somebody) #1"))
	write(dir+"modules.dep", "kernel/a.ko.xz: kernel/b-b.ko.gz kernel/c.ko.zst\nkernel/b-b.ko.gz: kernel/c.ko.zst\nkernel/c.ko.zst:\nkernel/d/d.ko:\n")
	write(dir+"modules.builtin", "kernel/fs/ext4/ext4.ko\n")
	write(dir+"modules.alias", "# comment\nalias pci:a* a\nalias pci:b* b_b\nalias pci:d* d\n")
	write(dir+"kernel/a.ko.xz", packXZ(t))
	write(dir+"kernel/b-b.ko.gz", packGzip(t))
	write(dir+"kernel/c.ko.zst", packZstd(t))
	write(dir+"kernel/d/d.ko", elfMagic)
	return root
}

func packXZ(t *testing.T) string {
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(elfMagic)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func packGzip(t *testing.T) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(elfMagic)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func packZstd(t *testing.T) string {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(w.EncodeAll([]byte(elfMagic), nil))
}

func bzImage(version string) string {
	head := make([]byte, 0x400)
	copy(head[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(head[0x20e:], 0x100)
	copy(head[0x300:], version)
	return string(head)
}

func find(t *testing.T) Kernel {
	t.Helper()
	k, err := Find(tree(t), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestResolve(t *testing.T) {
	k := find(t)
	for _, c := range []struct {
		name  string
		names []string
		want  string
	}{
		{"what it needs comes first", []string{"a"}, "c b_b a"},
		{"each once", []string{"c", "a", "b-b"}, "c b_b a"},
		{"dash is underscore", []string{"b-b"}, "c b_b"},
		{"built in", []string{"ext4", "d"}, "d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			modules, err := k.Resolve(c.names)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range modules {
				names = append(names, m.Name)
				data, err := m.Read()
				if err != nil || string(data) != elfMagic {
					t.Errorf("%s: %q, %v", m.Name, data, err)
				}
				if !strings.HasSuffix(m.File, ".ko") {
					t.Errorf("%s: file %s", m.Name, m.File)
				}
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if _, err := k.Resolve([]string{"a", "nosuch"}); !errors.Is(err, ErrNoModule) {
		t.Errorf("unknown module: %v", err)
	}
}

func TestNamesAndIndex(t *testing.T) {
	k := find(t)
	table, err := k.Table()
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Names("kernel/d/"); !slices.Equal(got, []string{"d"}) {
		t.Errorf("below kernel/d/: %v", got)
	}
	if !table.Builtin("ext4") || table.Builtin("a") {
		t.Error("built in: wrong")
	}
	alias, builtin, err := k.Index(func(name string) bool { return name == "b_b" })
	if err != nil || alias != "alias pci:b* b_b\n" || builtin != "kernel/fs/ext4/ext4.ko\n" {
		t.Errorf("index: %q, %q, %v", alias, builtin, err)
	}
}

func TestCustom(t *testing.T) {
	k := find(t)
	if got, err := Custom(k.Image, k.Modules); err != nil || got != k {
		t.Errorf("got %+v, %v", got, err)
	}
	other := filepath.Join(t.TempDir(), "6.1-b")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Custom(k.Image, other); err == nil {
		t.Error("took the modules of another kernel")
	}
	if err := os.Remove(filepath.Join(k.Modules, "modules.alias")); err != nil {
		t.Fatal(err)
	}
	if _, err := Custom(k.Image, k.Modules); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("modules without depmod: %v", err)
	}
}

func TestImageReleaseRefusesOtherFiles(t *testing.T) {
	outside := []byte(bzImage("x"))
	binary.LittleEndian.PutUint16(outside[0x20e:], 0xffff)
	for name, text := range map[string]string{
		"empty": "", "short": "MZ", "no magic": strings.Repeat("x", 0x400), "no version": bzImage(""), "offset outside": string(outside),
	} {
		path := filepath.Join(t.TempDir(), "vmlinuz")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if release, err := imageRelease(path); err == nil {
			t.Errorf("%s: took it as %q", name, release)
		}
	}
}

func TestFirmwareRefusesOtherFiles(t *testing.T) {
	for _, data := range []string{"", elfMagic, "firmware=x\x00"} {
		if names, err := Firmware([]byte(data)); err == nil {
			t.Errorf("%q: %v", data, names)
		}
	}
}
