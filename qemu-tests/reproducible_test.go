package qemutests

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReproducible builds a commit twice, in different folders and the second time
// with nothing in Go's cache, and compares all that is below build/image: images,
// media, bills of materials and an update bundle. The builder's keys are the same.
func TestReproducible(t *testing.T) {
	if rounds(0, 1) == 0 {
		t.Skip("only under make soak")
	}
	keys := filepath.Join(t.TempDir(), "keys")
	one := buildCommit(t, filepath.Join(t.TempDir(), "one"), keys, nil)
	two := buildCommit(t, filepath.Join(t.TempDir(), "a folder with a longer name"), keys, []string{"GOCACHE=" + t.TempDir()})
	for _, name := range slices.Sorted(maps.Keys(one)) {
		if two[name] != one[name] {
			t.Errorf("%s differs, or is only in one", name)
		}
	}
	if len(one) != len(two) {
		t.Errorf("%d files in one, %d in the other", len(one), len(two))
	}
	for _, want := range []string{
		"virtual/quantavirt.efi", "virtual/quantavirt.img", "virtual/quantavirt.iso", "virtual/pxe/initramfs", "virtual/sbom.cdx.json",
		"hardware/quantavirt.efi", "hardware/quantavirt.img", "hardware/quantavirt.iso", "update.qvu",
	} {
		if _, ok := one[want]; !ok {
			t.Errorf("%s was not built", want)
		}
	}
	t.Logf("%d files are the same", len(one))
}

// buildCommit builds the commit that is checked out in a clone, and returns the
// digest of each file.
func buildCommit(t *testing.T, dir, keys string, env []string) map[string][sha256.Size]byte {
	t.Helper()
	run := func(in string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = in, append(os.Environ(), append(env, "CGO_ENABLED=0", "SOURCE_DATE_EPOCH=")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run(shared.root, "git", "clone", "-q", "--shared", shared.root, dir)
	run(dir, "go", "build", "-trimpath", "-o", "build/bin/mkimage", "./image/cmd/mkimage")
	for _, build := range []string{"virtual", "hardware"} {
		run(dir, "build/bin/mkimage", "build", "--build", build, "--level", "9", "--keys", keys)
		run(dir, "build/bin/mkimage", "uki", "--build", build, "--keys", keys)
		run(dir, "build/bin/mkimage", "media", "--build", build)
	}
	out := filepath.Join(dir, "build", "image")
	run(dir, "build/bin/mkimage", "bundle", "--out", filepath.Join(out, "update.qvu"), "--keys", keys)
	sums := make(map[string][sha256.Size]byte)
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(data, []byte(dir)) {
			t.Errorf("%s names the folder that it was built in", path)
		}
		name, err := filepath.Rel(out, path)
		sums[name] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}
