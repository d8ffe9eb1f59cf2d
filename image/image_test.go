package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"

	"quantavirt/image/kernel"
	"quantavirt/image/secureboot"
	"quantavirt/image/tools"
	"quantavirt/internal/ukifile"
)

func TestParseModuleList(t *testing.T) {
	list, err := parseModuleList([]byte("# comment\n[one]\na # why\n+b-b\n\n[two]\nkernel/x/\n+c\n!d-d\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(list.always, []string{"b_b", "c"}) || !slices.Equal(list.network, []string{"d_d"}) || len(list.groups) != 2 ||
		!slices.Equal(list.groups[0].names, []string{"a", "b-b"}) || list.groups[1].name != "two" {
		t.Errorf("got %+v", list)
	}
	for _, bad := range []string{"a\n", "[x]\na b\n", "[x]\n++a\n", "[x]\n+!a\n", "[x]\n!\n"} {
		if _, err := parseModuleList([]byte(bad)); err == nil {
			t.Errorf("took %q", bad)
		}
	}
	if _, err := readModuleList("other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of no build: %v", err)
	}
}

// write makes an archive as u-root does.
func write(t *testing.T, records ...cpio.Record) *archive {
	t.Helper()
	a := newArchive(Meta{Version: "1", Build: "test", Kernel: "6.1"})
	a.groups["bin/x"] = "programs"
	w, err := a.OpenWriter()
	if err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return a
}

func file0(name, text string) cpio.Record { return cpio.StaticFile(name, text, 0o755) }

func TestArchive(t *testing.T) {
	touched := file0("bin/x", "program")
	touched.MTime, touched.UID, touched.GID, touched.Ino = 12, 34, 56, 78
	a, b := write(t, file0("bin/x", "program")), write(t, touched)
	if !bytes.Equal(a.raw.Bytes(), b.raw.Bytes()) {
		t.Error("time, owner or inode of a file change the archive")
	}
	if c := write(t, file0("bin/x", "Program")); c.meta.ID == a.meta.ID {
		t.Error("the id does not depend on the content")
	}
	records := unpack(t, a.raw.Bytes())
	if len(records) != 3 || records[1].Name != metaPath || records[2].Name != sentinel {
		t.Fatalf("records: %v", records)
	}
	if got := text(t, records[2]); got != a.meta.ID || len(got) != 32 {
		t.Errorf("sentinel %q, id %q", got, a.meta.ID)
	}
	var meta Meta
	if err := json.Unmarshal([]byte(text(t, records[1])), &meta); err != nil || meta != a.meta {
		t.Errorf("image.json: %+v, %v", meta, err)
	}
	sizes := a.sizes()
	sizes.finish("virtual", 100, 50)
	if len(sizes.Parts) != 1 || sizes.Parts[0] != (Part{Name: "programs", Raw: 7, Share: 50}) || sizes.Total != 150 {
		t.Errorf("sizes: %+v", sizes)
	}
	if err := a.WriteRecord(file0(sentinel, "forged")); err == nil {
		t.Error("took a sentinel from outside")
	}
}

func unpack(t *testing.T, raw []byte) []cpio.Record {
	t.Helper()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func text(t *testing.T, r cpio.Record) string {
	t.Helper()
	data, err := content(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestBuildTwice builds an image with small programs in two places and looks
// into it. It needs the root of Debian packages and some seconds of compiling.
func TestBuildTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles")
	}
	if _, ok := tools.Cached(); !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	if _, err := secureboot.EnsureKeys(keys); err != nil {
		t.Fatal(err)
	}
	options := func() Options {
		o := Options{Source: source, Out: t.TempDir(), Keys: keys, Build: "virtual", Version: "1.2.3", Level: 1, Progress: io.Discard}
		for _, p := range Programs() {
			o.Programs = append(o.Programs, Program{Package: "./image/testdata/tiny/" + filepath.Base(p.Path), Path: p.Path})
		}
		return o
	}
	first := options()
	one, err := Build(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(t.Context(), first)
	if err != nil || !again.Unchanged || again.ID != one.ID {
		t.Errorf("second run in the same place: unchanged %v, %v", again.Unchanged, err)
	}
	two, err := Build(t.Context(), options())
	if err != nil {
		t.Fatal(err)
	}
	if two.Unchanged || sum(t, one) != sum(t, two) || !bytes.Equal(readFile(t, one, SBOMFile), readFile(t, two, SBOMFile)) {
		t.Errorf("%s and %s differ", one.Dir, two.Dir)
	}
	checkBill(t, one, "linux-image-"+one.Kernel, "ca-certificates", "systemd-boot-efi", "grub-pc-bin", "e2fsprogs", "dosfstools", "libc6", "stdlib", "github.com/u-root/u-root")
	sameUKI(t, keys, one, two)
	// What an installation writes is what boots the media.
	if loader := text(t, checkContent(t, one)[bootDir+"/"+LoaderFile]); loader != string(readFile(t, one, LoaderFile)) {
		t.Errorf("the boot loader in the image, of %d bytes, is not that of the media", len(loader))
	}
	apart := options()
	apart.Separate = true
	three, err := Build(t.Context(), apart)
	if err != nil {
		t.Fatal(err)
	}
	checkContent(t, three)
}

// sameUKI makes the unified kernel images of two builds in different places with
// the same keys, and compares them.
func sameUKI(t *testing.T, keys string, a, b Image) {
	t.Helper()
	unify := func(i Image) {
		o := UKIOptions{Out: filepath.Dir(i.Dir), Build: i.Build, Cmdline: Cmdline, Keys: keys, Progress: io.Discard}
		if err := UKI(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	unify(a)
	unify(b)
	for _, name := range []string{UKIFile, LoaderFile, PCR11File} {
		if !bytes.Equal(readFile(t, a, name), readFile(t, b, name)) {
			t.Errorf("%s and %s hold a different %s", a.Dir, b.Dir, name)
		}
	}
	checkUKI(t, a, keys)
}

func checkUKI(t *testing.T, i Image, keys string) {
	t.Helper()
	key, err := secureboot.Load(keys, secureboot.DB)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{UKIFile, LoaderFile} {
		if err := secureboot.Verify(readFile(t, i, name), key.Certificate); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	made := readFile(t, i, UKIFile)
	f, err := ukifile.Open(bytes.NewReader(made), int64(len(made)))
	if err != nil {
		t.Fatal(err)
	}
	release, err := f.Release()
	if err != nil || release["ID"] != "quantavirt" || release["QUANTAVIRT_VERSION"] != i.Version || release["QUANTAVIRT_BUILD"] != i.Build {
		t.Errorf("os-release %v, %v", release, err)
	}
	// What systemd-boot would sort by before the number of the slot.
	for _, name := range []string{"IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"} {
		if _, ok := release[name]; ok {
			t.Errorf("os-release has %s", name)
		}
	}
	// A kernel that is not the one of image.json is noticed.
	if err := os.WriteFile(filepath.Join(i.Dir, "vmlinuz"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := UKIOptions{Out: filepath.Dir(i.Dir), Build: i.Build, Cmdline: Cmdline, Progress: io.Discard}
	if err := UKI(t.Context(), o); err == nil || !strings.Contains(err.Error(), "vmlinuz is not the file") {
		t.Errorf("a kernel that was exchanged: %v", err)
	}
}

func readFile(t *testing.T, i Image, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(i.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestHardware builds the hardware build with small programs: it brings
// microcode, and the firmware that its drivers ask for.
func TestHardware(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles")
	}
	_, ok := tools.Cached()
	_, withFirmware := tools.CachedFirmware()
	if !ok || !withFirmware {
		t.Skip("the roots of Debian packages are not there: make image BUILD=hardware makes them")
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Source: source, Out: t.TempDir(), Keys: t.TempDir(), Build: "hardware", Version: "1.2.3", Level: 1, Progress: io.Discard}
	for _, p := range Programs() {
		o.Programs = append(o.Programs, Program{Package: "./image/testdata/tiny/" + filepath.Base(p.Path), Path: p.Path})
	}
	i, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	files := checkContent(t, i)
	link, ok := files["lib/firmware/intel/ice/ddp/ice.pkg"]
	if !ok {
		t.Fatal("no firmware of ice in the image")
	}
	if target, ok := files["lib/firmware/intel/ice/ddp/"+text(t, link)]; !ok || len(text(t, target)) < 100_000 {
		t.Errorf("ice.pkg is a link to %q", text(t, link))
	}
	var have receipt
	if err := json.Unmarshal(readFile(t, i, "image.json"), &have); err != nil {
		t.Fatal(err)
	}
	if archive := readFile(t, i, microcodeFile); have.MicrocodeSHA256 != digest(archive) || len(archive) < 1<<20 {
		t.Errorf("microcode of %d bytes", len(archive))
	}
	checkBill(t, i, "linux-image-"+i.Kernel, "intel-microcode", "amd64-microcode", "firmware-misc-nonfree", "firmware-intel-misc")
	var list strings.Builder
	if err := i.PrintDrivers(&list); err != nil || !strings.Contains(list.String(), "/igb.ko\n") || !strings.Contains(list.String(), " lib/firmware/tigon/tg3.bin\n") {
		t.Errorf("list of drivers: %v\n%s", err, &list)
	}
	o.NoFirmware = true
	if i, err = Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for name := range checkContent(t, i) {
		if strings.HasPrefix(name, "lib/firmware") {
			t.Errorf("without firmware there is %s", name)
		}
	}
	if _, err := os.Stat(filepath.Join(i.Dir, microcodeFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("microcode in a build without: %v", err)
	}
}

// checkBill checks that the bill of materials names components, with versions,
// and the licences of those from Debian.
func checkBill(t *testing.T, i Image, names ...string) {
	t.Helper()
	var bill struct {
		Components []struct {
			Name, Version, PURL string
			Licenses            []any
		}
	}
	if err := json.Unmarshal(readFile(t, i, SBOMFile), &bill); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range bill.Components {
		found[c.Name] = c.Version != "" && c.PURL != "" && len(c.Licenses) > 0
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("the bill of materials has no %s with version and licence", name)
		}
	}
	if found["busybox-static"] || found["qemu-system-x86"] {
		t.Error("the bill of materials names packages that are not in the image")
	}
}

func sum(t *testing.T, i Image) [32]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(i.Dir, "initramfs.zst"))
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

func checkContent(t *testing.T, i Image) map[string]cpio.Record {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(i.Dir, "initramfs.zst"))
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	raw, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]cpio.Record{}
	seen := map[string]bool{".": true}
	for _, r := range unpack(t, raw) {
		files[r.Name] = r
		if !seen[filepath.Dir(r.Name)] {
			t.Errorf("%s comes before its directory", r.Name)
		}
		seen[r.Name] = true
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s: time %d, owner %d:%d", r.Name, r.MTime, r.UID, r.GID)
		}
	}
	dir := "lib/modules/" + i.Kernel + "/"
	for _, name := range []string{"init", "bin/quantavirt", "bin/hv", "bbin/bb", "bbin/ls", "bin/sh", "dev/console",
		dir + "modules.alias", dir + "modules.builtin", updateKeysPath + "/update-1.pub", "etc/ssl/certs/ca-certificates.crt", "var/run"} {
		if _, ok := files[name]; !ok {
			t.Errorf("no %s in the image", name)
		}
	}
	loadable := map[string]bool{}
	for line := range strings.Lines(text(t, files[dir+"modules.dep"])) {
		name, _, _ := strings.Cut(filepath.Base(strings.Split(line, ":")[0]), ".ko")
		loadable[kernel.Canonical(name)] = true
		for _, name := range strings.Fields(strings.Replace(line, ":", "", 1)) {
			if _, ok := files[dir+name]; !ok {
				t.Errorf("modules.dep names %s, which is not in the image", name)
			}
		}
	}
	for _, list := range []string{"modules.network", "modules.load"} {
		names := strings.Fields(text(t, files["etc/quantavirt/"+list]))
		if len(names) == 0 {
			t.Errorf("%s is empty", list)
		}
		for _, name := range names {
			if !loadable[name] {
				t.Errorf("%s names %s, which is not in the image", list, name)
			}
		}
	}
	return files
}
