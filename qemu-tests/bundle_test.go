package qemutests

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"

	"quantavirt/image"
	"quantavirt/image/tools"
	"quantavirt/image/uki"
	"quantavirt/internal/ukifile"
)

// release is an update of the image that is built.
type release struct {
	version string
	counter uint64
	words   string        // more on its kernel command line
	files   []cpio.Record // over those of its initramfs
	build   string        // that it is for; "" is "virtual"
	keys    string        // folder of the keys that sign it; "" for the builder's
}

// bundleOf makes a bundle of a release with nothing but words of its own.
func bundleOf(t *testing.T, version string, counter uint64, words string) []byte {
	t.Helper()
	return release{version: version, counter: counter, words: words}.bundle(t)
}

func (r release) bundle(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "system.efi")
	if err := os.WriteFile(path, r.uki(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.build == "" {
		r.build = "virtual"
	}
	if r.keys == "" {
		r.keys = filepath.Join(shared.root, "build", "keys")
	}
	out := filepath.Join(dir, "x.qvu")
	_, err := image.Bundle(image.BundleOptions{
		Out: out, Keys: r.keys, UKIs: map[string]string{r.build: path}, Version: r.version, Counter: r.counter, Created: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// uki makes the release's unified kernel image.
func (r release) uki(t *testing.T) []byte {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(root.Path("usr", "lib", "systemd", "boot", "efi", "linuxx64.efi.stub"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(imageFile(image.UKIFile))
	if err != nil {
		t.Fatal(err)
	}
	built, err := ukifile.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	text := func(section string) string {
		r, err := built.Section(section)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	made, err := uki.Make(uki.Parts{
		Stub: stub, Kernel: []byte(text(ukifile.Linux)), Initrd: append([]byte(text(ukifile.Initrd)), r.archive(t)...),
		Cmdline:   strings.TrimSpace(text(ukifile.Cmdline) + " " + r.words),
		OSRelease: text(ukifile.OSRelease), Uname: text(ukifile.Uname),
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// archive is what the kernel unpacks over the image's own files.
func (r release) archive(t *testing.T) []byte {
	t.Helper()
	if len(r.files) == 0 {
		return nil
	}
	var raw, packed bytes.Buffer
	w := cpio.Newc.Writer(&raw)
	if err := cpio.WriteRecords(w, r.files); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(&packed, zstd.WithEncoderCRC(false), zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return append(packed.Bytes(), make([]byte, -packed.Len()&3)...)
}

// Names in the image: all programs are one, which tells by its name what it is.
const (
	daemonProgram = "bin/quantavirt"
	moved         = "moved/quantavirt"
)

// crash says what of a system crashes when it starts.
type crash int

const (
	nothingCrashes crash = iota
	daemonCrashes        // and the rescue listener in its place is as it was
	allCrashes           // whatever manages the node
)

// files are those of a system whose program in the daemon's place crashes. PID 1 and
// the VMM are as they were.
func (c crash) files(t *testing.T) []cpio.Record {
	t.Helper()
	dir := t.TempDir()
	lives := map[crash]string{daemonCrashes: `os.Args[1] != "daemon"`, allCrashes: "false"}[c]
	source := `package main

import (
	"os"
	"syscall"
)

func main() {
	if ` + lives + ` {
		panic(syscall.Exec("/` + moved + `", append([]string{"quantavirt"}, os.Args[1:]...), os.Environ()))
	}
	var config map[string]int
	config["limit"] = 1
}
`
	place(t, filepath.Join(dir, "main.go"), []byte(source))
	place(t, filepath.Join(dir, "go.mod"), []byte("module crash\n"))
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "crash", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	crash, err := os.ReadFile(filepath.Join(dir, "crash"))
	if err != nil {
		t.Fatal(err)
	}
	real, err := os.ReadFile(imageFile(filepath.Join("programs", "multicall")))
	if err != nil {
		t.Fatal(err)
	}
	return []cpio.Record{
		cpio.Directory(filepath.Dir(moved), 0o755),
		cpio.StaticFile(moved, string(real), 0o755),
		cpio.Symlink("init", "/"+moved), cpio.Symlink("bin/hv", "/"+moved),
		cpio.StaticFile(daemonProgram, string(crash), 0o755),
	}
}

// signed is where the manifest of a bundle ends; see package bundle.
func signed(data []byte) int { return 8 + int(binary.LittleEndian.Uint32(data[4:])) }
