package qemutests

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/image"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// imageFile is a file of the virtual build.
func imageFile(name string) string {
	return filepath.Join(shared.root, "build", "image", "virtual", name)
}

// esp makes the directory of an ESP: systemd-boot and a slot, and what more is
// given by path. A loader and slot of the test's own replace those of the build.
func esp(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"EFI/BOOT/BOOTX64.EFI":      imageFile(image.LoaderFile),
		"EFI/Linux/qv-00000001.efi": imageFile(image.UKIFile),
	}
	maps.Copy(all, files)
	for name, from := range all {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(dir, name), data)
	}
	place(t, filepath.Join(dir, "loader", "loader.conf"), []byte("timeout 0\neditor no\n"))
	return dir
}

func place(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A TPM's PCR 11 holds what the build predicted after the unified kernel image
// was booted by firmware, systemd-boot and stub.
func TestMeasuredBoot(t *testing.T) {
	text, err := os.ReadFile(imageFile(image.PCR11File))
	if err != nil {
		t.Fatal(err)
	}
	var want ukifile.Measurement
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	n := boot(t, lab.Options{Name: "measured", Firmware: lab.FirmwareUEFI, ESP: esp(t, nil), TPM: true, Cmdline: "quantavirt.rescue"})
	got, err := n.Shell(t.Context(), "cat /sys/class/tpm/tpm0/pcr-sha256/11")
	if err != nil {
		t.Fatal(err)
	}
	if got = strings.ToLower(strings.TrimSpace(got)); got != want.Value.String() {
		t.Errorf("PCR 11 holds %s, predicted was %s", got, want.Value)
	}
}
