package media

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/image"
	"quantavirt/image/secureboot"
	"quantavirt/image/tools"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

const kernel = "the kernel"

// built is the directory of an image, as far as media need it.
func built(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	unified := petest.Image(512, petest.Section{Name: ukifile.Cmdline, Data: image.Cmdline},
		petest.Section{Name: ukifile.Initrd, Data: strings.Repeat("initial file system ", 300_000)},
		petest.Section{Name: ukifile.Linux, Data: kernel})
	for name, data := range map[string]string{
		"image.json": `{"id":"0123456789abcdef","version":"1.2","build":"virtual","kernel":"6.12"}`,
		image.SBOMFile: `{"bomFormat":"CycloneDX","specVersion":"1.6","serialNumber":"urn:uuid:5c6f2a54-7b1d-4c0e-9a86-2f3d1e8b7a90",
			"components":[{"type":"library","name":"stdlib","bom-ref":"pkg:golang/stdlib@1"}],
			"dependencies":[{"ref":"quantavirt","dependsOn":["pkg:golang/stdlib@1"]}]}`,
		image.LoaderFile: "systemd-boot", image.UKIFile: string(unified), configName: `{"hostname":"node-1"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Options{
		Dir: dir, Config: filepath.Join(dir, configName), Counter: 3,
		Time: time.Date(2026, 1, 15, 14, 32, 2, 0, time.UTC), Progress: io.Discard,
	}
}

func makeMedia(t *testing.T, o Options) {
	t.Helper()
	root, ok := tools.Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	if err := Make(t.Context(), root, o); err != nil {
		t.Fatal(err)
	}
}

// esp copies the EFI system partition of a disk to a file of its own.
func esp(t *testing.T, disk string) string {
	t.Helper()
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "esp.img")
	const begin, end = 2 << 20, 1 << 20
	if err := os.WriteFile(path, data[begin:len(data)-end], 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMake has the usual tools look at disk and ISO.
func TestMake(t *testing.T) {
	o := built(t)
	o.Keys = t.TempDir()
	if _, err := secureboot.EnsureKeys(o.Keys); err != nil {
		t.Fatal(err)
	}
	makeMedia(t, o)
	unified, err := os.ReadFile(filepath.Join(o.Dir, image.UKIFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{DiskFile, ISOFile} {
		path := filepath.Join(o.Dir, name)
		if out := hosttool.Run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("%s: sgdisk -v:\n%s", name, out)
		}
		volume := esp(t, path)
		hosttool.Run(t, "fsck.vfat", "-n", volume)
		for file, want := range map[string]string{
			"EFI/BOOT/BOOTX64.EFI": "systemd-boot", "EFI/Linux/qv-00000001.efi": string(unified),
			"qv/00000001/vmlinuz": kernel, configName: `{"hostname":"node-1"}`,
		} {
			if got := hosttool.Run(t, "mtype", "-i", volume, "::/"+file); got != want {
				t.Errorf("%s: %s: %d bytes, want %d", name, file, len(got), len(want))
			}
		}
		info, err := slot.ParseInfo([]byte(hosttool.Run(t, "mtype", "-i", volume, "::/qv/00000001/slot.json")))
		if err != nil || info.Version != "1.2" || info.Build != "virtual" || info.Counter != 3 || info.State != slot.StateGood || !info.WrittenAt.Equal(o.Time) {
			t.Errorf("%s: slot.json: %+v, %v", name, info, err)
		}
	}
	out := t.TempDir()
	hosttool.Run(t, "xorriso", "-abort_on", "WARNING", "-osirrox", "on", "-indev", filepath.Join(o.Dir, ISOFile), "-extract", "/", out)
	got, err := os.ReadFile(filepath.Join(out, "EFI/Linux/qv-00000001.efi"))
	if err != nil || !bytes.Equal(got, unified) {
		t.Errorf("the unified kernel image on the ISO: %d bytes, %v", len(got), err)
	}
	for name, want := range map[string]string{"vmlinuz": kernel, image.UKIFile: string(unified)} {
		if got, err := os.ReadFile(filepath.Join(o.Dir, PXEDir, name)); err != nil || string(got) != want {
			t.Errorf("pxe/%s: %d bytes, %v", name, len(got), err)
		}
	}
	script, err := os.ReadFile(filepath.Join(o.Dir, PXEDir, scriptFile))
	if err != nil || string(script) != bootScript || !strings.Contains(bootScript, " panic=10 ") {
		t.Errorf("boot script: %q, %v", script, err)
	}
	checkIPXE(t, o)
}

// checkIPXE has iPXE for UEFI signed, and both in the bill of materials.
func checkIPXE(t *testing.T, o Options) {
	t.Helper()
	key, err := secureboot.Load(o.Keys, secureboot.DB)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ipxePrograms {
		program, err := os.ReadFile(filepath.Join(o.Dir, PXEDir, p.name))
		if err != nil || len(program) < 64<<10 {
			t.Fatalf("pxe/%s: %d bytes, %v", p.name, len(program), err)
		}
		if err := secureboot.Verify(program, key.Certificate); p.uefi && err != nil {
			t.Errorf("pxe/%s: %v", p.name, err)
		}
	}
	bill, err := os.ReadFile(filepath.Join(o.Dir, PXEDir, image.SBOMFile))
	if err != nil {
		t.Fatal(err)
	}
	var have struct {
		SerialNumber string
		Components   []struct {
			Name, Version string
			Licenses      []any
		}
	}
	if err := json.Unmarshal(bill, &have); err != nil {
		t.Fatal(err)
	}
	if c := have.Components; len(c) != 2 || c[0].Name != "stdlib" || c[1].Name != "ipxe" || c[1].Version == "" || len(c[1].Licenses) == 0 ||
		strings.HasSuffix(have.SerialNumber, "2f3d1e8b7a90") {
		t.Errorf("bill of the network boot files: %s", bill)
	}
}

// Two builds in two places are the same.
func TestMakeTwice(t *testing.T) {
	one, two := built(t), built(t)
	makeMedia(t, one)
	makeMedia(t, two)
	for _, name := range []string{DiskFile, ISOFile, "pxe/initramfs"} {
		a, err := os.ReadFile(filepath.Join(one.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(two.Dir, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two runs differ, %v", name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(one.Dir, "*.part"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMakeRefuses(t *testing.T) {
	root, ok := tools.Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	for name, change := range map[string]func(o Options) error{
		"no image":       func(o Options) error { return os.Remove(filepath.Join(o.Dir, "image.json")) },
		"no loader":      func(o Options) error { return os.Remove(filepath.Join(o.Dir, image.LoaderFile)) },
		"no UKI":         func(o Options) error { return os.Remove(filepath.Join(o.Dir, image.UKIFile)) },
		"no bill":        func(o Options) error { return os.Remove(filepath.Join(o.Dir, image.SBOMFile)) },
		"broken UKI":     func(o Options) error { return os.Truncate(filepath.Join(o.Dir, image.UKIFile), 1000) },
		"not JSON":       func(o Options) error { return os.WriteFile(o.Config, []byte("{"), 0o644) },
		"no config file": func(o Options) error { return os.Remove(o.Config) },
	} {
		o := built(t)
		if err := change(o); err != nil {
			t.Fatal(err)
		}
		if err := Make(t.Context(), root, o); err == nil {
			t.Errorf("%s: made media", name)
		}
		if _, err := os.Stat(filepath.Join(o.Dir, DiskFile)); err == nil {
			t.Errorf("%s: there is a disk", name)
		}
	}
}
