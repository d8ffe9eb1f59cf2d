package medium

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"quantavirt/internal/efivar"
	"quantavirt/internal/qverr"
)

const esp = "0f3a1b2c-1111-2222-3333-444455556666"

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	data := []byte{6, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(text + "\x00")) {
		data = binary.LittleEndian.AppendUint16(data, u)
	}
	if err := os.WriteFile(filepath.Join(dir, name+"-"+loaderVendor.String()), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), append([]byte{6, 0, 0, 0}, data...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Nodes of a device path, as OVMF writes them.
var (
	pciNode = []byte{1, 1, 6, 0, 0, 2}
	macNode = append(append([]byte{3, 11, 37, 0, 0x52, 0x54, 0, 0x71, 0x76, 1}, make([]byte, 26)...), 1)
	ipNode  = append([]byte{3, 12, 27, 0}, make([]byte, 23)...)
	endNode = []byte{0x7f, 0xff, 4, 0}
)

const card = "52:54:00:71:76:01"

func loadOption(description string, nodes ...[]byte) []byte {
	data, err := efivar.LoadOption{Attributes: efivar.Active, Description: description, Path: bytes.Join(nodes, nil)}.Encode()
	if err != nil {
		panic(err)
	}
	return data
}

func TestCardOf(t *testing.T) {
	for in, want := range map[string]string{
		"01-52-54-00-71-76-01": card, "01-52:54:00:71:76:01": card, "52-54-00-71-76-01": "", "01-52-54-00-71-76": "",
		"01-": "", "": "", "01-AA-bb-00-71-76-01": "aa:bb:00:71:76:01", "01-00-11-22-33-44-55-66-77": "",
	} {
		if got := CardOf(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		vars, options map[string]string
		uefi          bool
		bootif        string
		want          Loader
		medium        string
		boot          []byte // of BootCurrent; empty: it is not there
		code          qverr.Code
	}{
		"kernel of QEMU":            {medium: Direct},
		"UEFI without us":           {uefi: true, vars: map[string]string{"LoaderInfo": "other"}, want: Loader{UEFI: true}, medium: Direct},
		"network":                   {uefi: true, bootif: "01-52-54-00-71-76-01", want: Loader{UEFI: true, Card: card}, medium: PXE},
		"network and disc":          {bootif: "01-52-54-00-71-76-01", options: map[string]string{"disc": ""}, want: Loader{Disc: true, Card: card}, medium: PXE},
		"network of something else": {bootif: "20-00-11", medium: Direct},
		"network, then a disk": {bootif: "01-52-54-00-71-76-01", options: map[string]string{"slot": "00000007", "esp": esp},
			want: Loader{PartUUID: esp, Slot: 7, Card: card}, medium: BIOSDisk},
		"HTTP boot": {uefi: true, boot: loadOption("UEFI HTTPv4", pciNode, macNode, ipNode, endNode), vars: map[string]string{"StubImageIdentifier": `Uri(http://10.0.0.1/quantavirt.efi)`},
			want: Loader{UEFI: true, Stub: true, Card: card}, medium: PXE},
		"PXE and a name of ours": {uefi: true, boot: loadOption("UEFI PXEv4", macNode), vars: map[string]string{"StubImageIdentifier": `\qv-00000001.efi`},
			want: Loader{UEFI: true, Stub: true, Slot: 1, Disc: true, Card: card}, medium: PXE},
		"disk of the firmware": {uefi: true, boot: loadOption("UEFI Misc Device", pciNode, endNode), want: Loader{UEFI: true}, medium: Direct},
		"a damaged option":     {uefi: true, boot: []byte{1, 0}, want: Loader{UEFI: true}, medium: Direct, code: qverr.Inval},
		"no such option":       {uefi: true, boot: []byte{}, want: Loader{UEFI: true}, medium: Direct},
		"GRUB on a disc":       {options: map[string]string{"disc": ""}, want: Loader{Disc: true}, medium: ISO},
		"installed": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": "0F3A1B2C-1111-2222-3333-444455556666",
			"StubImageIdentifier": `\EFI\Linux\qv-00000003.efi`}, want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 3}, medium: UEFIDisk},
		"on trial": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": esp, "StubDevicePartUUID": esp,
			"StubImageIdentifier": `\EFI\Linux\qv-00000004+0-1.efi`}, want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 4, Trial: true}, medium: UEFIDisk},
		"old stub": {uefi: true, vars: map[string]string{"LoaderDevicePartUUID": esp, "LoaderImageIdentifier": `\EFI\Linux\qv-00000004.efi`},
			want: Loader{UEFI: true, Stub: true, PartUUID: esp, Slot: 4}, medium: UEFIDisk},
		"disc": {uefi: true, vars: map[string]string{"StubImageIdentifier": `\EFI\Linux\qv-00000001.efi`},
			want: Loader{UEFI: true, Stub: true, Slot: 1, Disc: true}, medium: ISO},
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
		if c.boot != nil {
			put(t, dir, "BootCurrent-"+efivar.Global.String(), []byte{0x1f, 0})
		}
		if len(c.boot) > 0 {
			put(t, dir, "Boot001F-"+efivar.Global.String(), c.boot)
		}
		got, err := Read(dir, c.uefi, func(name string) (string, bool) { v, ok := c.options[name]; return v, ok }, c.bootif)
		if qverr.CodeOf(err) != c.code || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if m := got.Medium(); m != c.medium {
			t.Errorf("%s: %s, not %s", name, m, c.medium)
		}
	}
}

func TestReadDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "StubImageIdentifier"+"-"+loaderVendor.String()), []byte{1, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, true, func(string) (string, bool) { return "", false }, ""); qverr.CodeOf(err) != qverr.IO {
		t.Errorf("a variable of two bytes: %v", err)
	}
}

func FuzzVariable(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 'a', 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "StubImageIdentifier"+"-"+loaderVendor.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Read(dir, true, func(string) (string, bool) { return "", false }, "")
		if err != nil && qverr.CodeOf(err) == qverr.Generic {
			t.Errorf("no code: %v", err)
		}
		if m := l.Medium(); m != Direct && m != UEFIDisk && m != ISO {
			t.Errorf("medium %q", m)
		}
	})
}

func TestIsDisc(t *testing.T) {
	disc := func(id, label string) *strings.Reader {
		return strings.NewReader(strings.Repeat("\x00", 16*2048) + id + strings.Repeat(" ", 34) + label + strings.Repeat(" ", 2048))
	}
	if !IsDisc(disc("\x01CD001", DiscLabel)) {
		t.Error("our own disc is not known")
	}
	for name, r := range map[string]*strings.Reader{
		"blank": strings.NewReader(""), "another": disc("\x01CD001", "DEBIAN"), "longer": disc("\x01CD001", DiscLabel+"2"), "no ISO 9660": disc("\x01CD002", DiscLabel),
	} {
		if IsDisc(r) {
			t.Errorf("%s: taken for ours", name)
		}
	}
}
