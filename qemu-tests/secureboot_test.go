package qemutests

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/image/secureboot"
	"quantavirt/qemu-tests/lab"
)

// programs are the loader and the unified kernel image of a build.
type programs struct{ loader, slot string }

// signedBy makes the loader and the unified kernel image of the virtual build
// anew, signed by the keys of a directory, or unsigned without one.
func signedBy(t *testing.T, keys, cmdline string) programs {
	t.Helper()
	out := t.TempDir()
	for _, name := range []string{"vmlinuz", "initramfs.zst", "image.json"} {
		data, err := os.ReadFile(imageFile(name))
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(out, "virtual", name), data)
	}
	o := image.UKIOptions{Out: out, Build: "virtual", Cmdline: cmdline, Keys: keys, Progress: io.Discard}
	if err := image.UKI(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return programs{filepath.Join(out, "virtual", image.LoaderFile), filepath.Join(out, "virtual", image.UKIFile)}
}

// builderKeys are those that have signed the images.
func builderKeys(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(shared.root, "build", "keys")
	key, err := secureboot.Load(dir, secureboot.DB)
	if err != nil {
		t.Fatalf("%v: make keys images makes keys, and images that they sign", err)
	}
	for _, build := range []string{"virtual", "hardware"} {
		data, err := os.ReadFile(filepath.Join(shared.root, "build", "image", build, image.UKIFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := secureboot.Verify(data, key.Certificate); err != nil {
			t.Fatalf("the %s build: %v: make images BUILD=%s signs it", build, err, build)
		}
	}
	return dir
}

func newKeys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := secureboot.EnsureKeys(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// enrol has firmware in setup mode take the builder's keys, by systemd-boot from an
// ESP, and returns the firmware's variables.
func enrol(t *testing.T, keys string) string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{secureboot.PK, secureboot.KEK, secureboot.DB} {
		files["loader/keys/auto/"+name+".auth"] = filepath.Join(keys, name+".auth")
	}
	n := boot(t, lab.Options{Name: "enrol", Firmware: lab.FirmwareSecure, ESP: esp(t, files), NoWait: true})
	waitLine(t, n, "Custom Secure Boot keys successfully enrolled")
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(n.Dir, "variables.fd"))
	if err != nil {
		t.Fatal(err)
	}
	enrolled := filepath.Join(t.TempDir(), "variables.fd")
	place(t, enrolled, data)
	return enrolled
}

// waitLine waits for what the console says.
func waitLine(t *testing.T, n *lab.Node, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	line, err := n.WaitLine(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Firmware in setup mode takes the builder's keys from the ESP by systemd-boot;
// from then on it boots what they have signed and nothing else.
func TestSecureBoot(t *testing.T) {
	keys := builderKeys(t)
	enrolled := enrol(t, keys)
	t.Run("USB", func(t *testing.T) {
		n := boot(t, lab.Options{Name: "secure", Build: "hardware", Firmware: lab.FirmwareSecure, Variables: enrolled, Card: true, Cmdline: "quantavirt.rescue",
			Medium: lab.Medium{File: medium(t, "hardware", media.DiskFile), As: lab.MediumUSB}})
		out, err := n.Shell(t.Context(), "dmesg | grep -i 'secure boot'")
		if err != nil {
			t.Fatal(err)
		}
		t.Log(out)
		if !strings.Contains(out, "Secure boot enabled") {
			t.Errorf("the kernel says %q of Secure Boot", out)
		}
		settled(t, n)
		// Secure Boot locks the kernel down: modules load by signature only.
		if s := info(t, n); !s.KVM.Available || s.CryptoProvider != "quac100" {
			t.Errorf("under Secure Boot: KVM %v, cryptography %s, %+v", s.KVM.Available, s.CryptoProvider, s.Problems)
		}
	})
	ours := programs{imageFile(image.LoaderFile), imageFile(image.UKIFile)}
	foreign, unsigned := signedBy(t, newKeys(t), image.Cmdline), signedBy(t, "", image.Cmdline)
	for _, c := range []struct{ name, loader, slot, says string }{
		{"unsigned", ours.loader, unsigned.slot, `Error loading \EFI\Linux\qv-00000001.efi: Access denied`},
		{"foreign key", ours.loader, foreign.slot, `Error loading \EFI\Linux\qv-00000001.efi: Access denied`},
		{"unsigned loader", unsigned.loader, ours.slot, "failed to load Boot0001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := boot(t, lab.Options{Name: "insecure", Firmware: lab.FirmwareSecure, Variables: enrolled, NoWait: true,
				ESP: esp(t, map[string]string{"EFI/BOOT/BOOTX64.EFI": c.loader, "EFI/Linux/qv-00000001.efi": c.slot})})
			if line := waitLine(t, n, c.says); !strings.Contains(strings.ToLower(line), "access denied") {
				t.Errorf("the firmware says %q", line)
			}
			// Its last word; after that nothing else is tried.
			waitLine(t, n, "No bootable option or device was found")
			text, err := os.ReadFile(n.ConsoleLog)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "quantavirt") {
				t.Errorf("it booted all the same:\n%s", text)
			}
		})
	}
}
