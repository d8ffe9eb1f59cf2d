package medium

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf16"

	"quantavirt/internal/qverr"
)

const esp = "0f3a1b2c-1111-2222-3333-444455556666"

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	data := []byte{6, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(text + "\x00")) {
		data = binary.LittleEndian.AppendUint16(data, u)
	}
	if err := os.WriteFile(filepath.Join(dir, name+vendor), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		vars, options map[string]string
		uefi          bool
		disc, net     bool
		want          Loader
		medium        string
		code          qverr.Code
	}{
		"kernel of QEMU":   {medium: Direct},
		"UEFI without us":  {uefi: true, vars: map[string]string{"LoaderInfo": "other"}, want: Loader{UEFI: true}, medium: Direct},
		"network":          {uefi: true, net: true, want: Loader{UEFI: true}, medium: PXE},
		"network and disc": {net: true, disc: true, medium: PXE},
		"installed": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": "0F3A1B2C-1111-2222-3333-444455556666",
			"StubImageIdentifier": `\EFI\Linux\qv-00000003.efi`}, want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 3}, medium: UEFIDisk},
		"on trial": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": esp, "StubDevicePartUUID": esp,
			"StubImageIdentifier": `\EFI\Linux\qv-00000004+0-1.efi`}, want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 4, Trial: true}, medium: UEFIDisk},
		"old stub": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": esp, "LoaderImageIdentifier": `\EFI\Linux\qv-00000004.efi`},
			want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 4}, medium: UEFIDisk},
		"disc": {uefi: true, disc: true, vars: map[string]string{"StubImageIdentifier": `\EFI\Linux\qv-00000001.efi`},
			want: Loader{UEFI: true, Stub: true, Slot: 1}, medium: ISO},
		"another image": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": esp, "StubImageIdentifier": `\EFI\Linux\debian.efi`},
			want: Loader{UEFI: true, Stub: true, PartUUID: esp}, medium: Direct},
		"GRUB":          {options: map[string]string{"slot": "00000007", "esp": "0F3A1B2C-1111-2222-3333-444455556666"}, want: Loader{PartUUID: esp, Slot: 7}, medium: BIOSDisk},
		"GRUB, a trial": {options: map[string]string{"slot": "00000007", "esp": esp, "try": ""}, want: Loader{PartUUID: esp, Slot: 7, Trial: true}, medium: BIOSDisk},
		"one kernel after another": {uefi: true, options: map[string]string{"slot": "00000008", "esp": esp, "try": ""},
			vars: map[string]string{"LoaderDevicePartUUID": esp, "StubImageIdentifier": `\EFI\Linux\qv-00000007.efi`},
			want: Loader{UEFI: true, PartUUID: esp, Slot: 8, Trial: true}, medium: UEFIDisk},
		"no number":    {options: map[string]string{"slot": "7", "esp": esp}, code: qverr.Config, medium: Direct},
		"no partition": {options: map[string]string{"slot": "00000007", "esp": "sda1"}, code: qverr.Config, medium: Direct},
	} {
		dir := t.TempDir()
		for name, text := range c.vars {
			write(t, dir, name, text)
		}
		got, err := Read(dir, c.uefi, func(name string) (string, bool) { v, ok := c.options[name]; return v, ok })
		if qverr.CodeOf(err) != c.code || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if m := got.Medium(c.disc, c.net); m != c.medium {
			t.Errorf("%s: %s, not %s", name, m, c.medium)
		}
	}
}

func TestReadDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "StubImageIdentifier"+vendor), []byte{1, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, true, func(string) (string, bool) { return "", false }); qverr.CodeOf(err) != qverr.IO {
		t.Errorf("a variable of two bytes: %v", err)
	}
}

func FuzzVariable(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 'a', 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "StubImageIdentifier"+vendor), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Read(dir, true, func(string) (string, bool) { return "", false })
		if err != nil && qverr.CodeOf(err) == qverr.Generic {
			t.Errorf("no code: %v", err)
		}
		if m := l.Medium(false, false); m != Direct && m != UEFIDisk {
			t.Errorf("medium %q", m)
		}
	})
}
