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
	"quantavirt/image/secureboot"
	"quantavirt/qemu-tests/lab"
)

// programs are the loader and the unified kernel image of a build.
type programs struct{ loader, slot string }

// signedBy makes the loader and the unified kernel image of the virtual build
// anew, signed by the keys of a directory, or unsigned without one.
func signedBy(t *testing.T, keys string) programs {
	t.Helper()
	out := t.TempDir()
	for _, name := range []string{"vmlinuz", "initramfs.zst", "image.json"} {
		data, err := os.ReadFile(imageFile(name))
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(out, "virtual", name), data)
	}
	o := image.UKIOptions{Out: out, Build: "virtual", Cmdline: image.Cmdline, Keys: keys, Progress: io.Discard}
	if err := image.UKI(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return programs{filepath.Join(out, "virtual", image.LoaderFile), filepath.Join(out, "virtual", image.UKIFile)}
}

func newKeys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := secureboot.EnsureKeys(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// espOf is the directory of an ESP with a loader and a slot.
func espOf(t *testing.T, loader, slot string, more map[string]string) string {
	t.Helper()
	files := map[string]string{"EFI/BOOT/BOOTX64.EFI": loader, "EFI/Linux/qv-00000001.efi": slot}
	for name, from := range more {
		files[name] = from
	}
	return esp(t, files)
}

// Firmware in setup mode takes the builder's keys from the ESP by systemd-boot;
// from then on it boots what they have signed and nothing else.
func TestSecureBoot(t *testing.T) {
	keys := newKeys(t)
	ours, foreign, unsigned := signedBy(t, keys), signedBy(t, newKeys(t)), signedBy(t, "")
	enrolment := map[string]string{}
	for _, name := range []string{secureboot.PK, secureboot.KEK, secureboot.DB} {
		enrolment["loader/keys/auto/"+name+".auth"] = filepath.Join(keys, name+".auth")
	}
	enrolled := filepath.Join(t.TempDir(), "variables.fd")
	t.Run("signed", func(t *testing.T) {
		n := boot(t, lab.Options{Name: "secure", Firmware: lab.FirmwareSecure, ESP: espOf(t, ours.loader, ours.slot, enrolment),
			DataDisk: 256, Card: true, Cmdline: "quantavirt.rescue"})
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
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(n.Dir, "variables.fd"))
		if err != nil {
			t.Fatal(err)
		}
		place(t, enrolled, data)
	})
	if t.Failed() {
		t.FailNow() // the others need its variables
	}
	for _, c := range []struct{ name, loader, slot, says string }{
		{"unsigned", ours.loader, unsigned.slot, `Error loading \EFI\Linux\qv-00000001.efi: Access denied`},
		{"foreign key", ours.loader, foreign.slot, `Error loading \EFI\Linux\qv-00000001.efi: Access denied`},
		{"unsigned loader", unsigned.loader, ours.slot, "failed to load Boot0001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := boot(t, lab.Options{Name: "insecure", Firmware: lab.FirmwareSecure, Variables: enrolled,
				ESP: espOf(t, c.loader, c.slot, nil), NoWait: true})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			line, err := n.WaitLine(ctx, c.says)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ToLower(line), "access denied") {
				t.Errorf("the firmware says %q", line)
			}
			// Its last word; after that nothing else is tried.
			if _, err := n.WaitLine(ctx, "No bootable option or device was found"); err != nil {
				t.Fatal(err)
			}
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
