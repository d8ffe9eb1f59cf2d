package efivar

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
)

var esp = Partition{Number: 2, First: 4096, Size: 4194304, ID: uuid.MustParse("01234567-89ab-cdef-0123-456789abcdef")}

const loader = "EFI/systemd/systemd-bootx64.efi"

func option(p Partition) LoadOption {
	return LoadOption{Attributes: Active, Description: "QuantaVirt", Path: FilePath(p, loader)}
}

// The bytes are those that the specification's tables give, field by field.
func TestLoadOption(t *testing.T) {
	o := LoadOption{Attributes: Active, Description: "Qv", Path: FilePath(esp, "a/b"), Optional: []byte{9}}
	got, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = "01000000" + "3c00" + "510076000000" + // attributes, length of the paths, description
		"04012a00" + "02000000" + "0010000000000000" + "0000400000000000" + "67452301ab89efcd0123456789abcdef" + "0202" +
		"04040e00" + "5c0061005c0062000000" +
		"7fff0400" + "09"
	if hex.EncodeToString(got) != want {
		t.Errorf("\n%x, want\n%s", got, want)
	}
	again, err := ParseLoadOption(got)
	if err != nil || again.Description != "Qv" || again.Attributes != Active || !bytes.Equal(again.Optional, []byte{9}) {
		t.Errorf("%+v %v", again, err)
	}
	if p, path, ok := again.File(); !ok || p != esp || path != "a/b" {
		t.Errorf("%+v %q %v", p, path, ok)
	}
	for n := range len(got) - 1 { // the last byte is optional
		if _, err := ParseLoadOption(got[:n]); !errors.Is(err, qverr.Inval) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	for _, bad := range []LoadOption{{Path: make([]byte, 1<<16)}, {Description: "a\x00b"}} {
		if _, err := bad.Encode(); !errors.Is(err, qverr.Inval) {
			t.Errorf("%d bytes: %v", len(bad.Path), err)
		}
	}
	for name, path := range map[string][]byte{
		"none": nil, "no file": o.Path[:hardDriveSize], "no end": o.Path[:len(o.Path)-nodeHeader], "more": append(bytes.Clone(o.Path), 0),
		"a file alone": o.Path[hardDriveSize:], "an MBR": append(append(bytes.Clone(o.Path[:40]), 1, 1), o.Path[42:]...),
	} {
		if _, _, ok := (LoadOption{Path: path}).File(); ok {
			t.Errorf("%s was taken", name)
		}
	}
}

// memory are variables without a firmware.
type memory struct {
	values  map[string][]byte
	written []string // names
}

func (m *memory) Names() ([]string, error) { return slices.Sorted(maps.Keys(m.values)), nil }

func (m *memory) Get(name string) (uint32, []byte, error) {
	v, ok := m.values[name]
	if !ok {
		return 0, nil, qverr.New(qverr.NoEnt, "%s", name)
	}
	return written, v, nil
}

func (m *memory) Set(name string, attributes uint32, value []byte) error {
	if attributes != written {
		return qverr.New(qverr.Inval, "attributes %#x", attributes)
	}
	m.values[name] = value
	m.written = append(m.written, name)
	return nil
}

func (m *memory) Delete(name string) error {
	delete(m.values, name)
	m.written = append(m.written, "-"+name)
	return nil
}

func encoded(t *testing.T, o LoadOption) []byte {
	t.Helper()
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBootFirst(t *testing.T) {
	old := esp
	old.ID = uuid.MustParse("ffffffff-89ab-cdef-0123-456789abcdef")
	network := LoadOption{Attributes: Active, Description: "UEFI PXEv4", Path: []byte{0x7f, 0xff, 4, 0}}
	other := option(old)
	other.Description = "Linux Boot Manager"
	was := LoadOption{Attributes: Active, Description: "QuantaVirt", Path: FilePath(old, strings.ToUpper(loader))}
	ours := encoded(t, option(esp))
	for _, c := range []struct {
		name    string
		have    map[string][]byte
		entry   string
		order   []uint16
		written []string
	}{
		{"nothing there", map[string][]byte{"Timeout": {0, 0}}, "Boot0000", []uint16{0}, []string{"Boot0000", "BootOrder"}},
		{"others", map[string][]byte{
			"Boot0000": encoded(t, network), "Boot0001": encoded(t, other), "Boot000A": {1}, "BootCurrent": {0, 0}, "BootOrder": encodeOrder([]uint16{1, 0, 10}),
		}, "Boot0002", []uint16{2, 1, 0, 10}, []string{"Boot0002", "BootOrder"}},
		{"an older one", map[string][]byte{
			"Boot0000": encoded(t, network), "Boot0007": encoded(t, was), "BootOrder": encodeOrder([]uint16{0, 7}),
		}, "Boot0007", []uint16{7, 0}, []string{"Boot0007", "BootOrder"}},
		{"several older ones, and one that is in no order", map[string][]byte{
			"Boot0001": encoded(t, was), "Boot0003": encoded(t, was), "Boot0004": encoded(t, network), "Boot0005": encoded(t, was), "BootOrder": encodeOrder([]uint16{4, 3, 1}),
		}, "Boot0003", []uint16{3, 4}, []string{"Boot0003", "BootOrder", "-Boot0001", "-Boot0005"}},
		{"already", map[string][]byte{
			"Boot0004": encoded(t, network), "Boot0005": ours, "BootOrder": encodeOrder([]uint16{5, 4}),
		}, "Boot0005", []uint16{5, 4}, nil},
		{"already, but not first", map[string][]byte{
			"Boot0004": encoded(t, network), "Boot0005": ours, "BootOrder": encodeOrder([]uint16{4, 5}),
		}, "Boot0005", []uint16{5, 4}, []string{"BootOrder"}},
	} {
		m := &memory{values: c.have}
		entry, err := BootFirst(m, option(esp))
		if err != nil || entry != c.entry || !bytes.Equal(m.values[entry], ours) || !bytes.Equal(m.values[bootOrder], encodeOrder(c.order)) {
			t.Errorf("%s: %s %v, order % x", c.name, entry, err, m.values[bootOrder])
		}
		if !slices.Equal(m.written, c.written) {
			t.Errorf("%s: wrote %v, want %v", c.name, m.written, c.written)
		}
	}
	if _, err := BootFirst(&memory{}, network); !errors.Is(err, qverr.Inval) {
		t.Errorf("an entry that is no file: %v", err)
	}
	full := &memory{values: map[string][]byte{}}
	for n := range 1 << 16 {
		full.values[bootVariable(uint16(n))] = nil
	}
	if _, err := BootFirst(full, option(esp)); !errors.Is(err, qverr.Limit) {
		t.Errorf("a full firmware: %v", err)
	}
}

func TestFiles(t *testing.T) {
	f := Files{Dir: t.TempDir(), Vendor: Global}
	if err := os.WriteFile(filepath.Join(f.Dir, "Other-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Get("Boot0001"); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
	if err := f.Set("Boot0001", written, []byte("value")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(f.Dir, "Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	if err != nil || string(raw) != "\x07\x00\x00\x00value" {
		t.Errorf("%q %v", raw, err)
	}
	if a, v, err := f.Get("Boot0001"); err != nil || a != written || string(v) != "value" {
		t.Errorf("%#x %q %v", a, v, err)
	}
	if names, err := f.Names(); err != nil || !slices.Equal(names, []string{"Boot0001"}) {
		t.Errorf("%v %v", names, err)
	}
	for range 2 {
		if err := f.Delete("Boot0001"); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(f.path("Short"), []byte{7}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Get("Short"); !errors.Is(err, qverr.IO) {
		t.Error(err)
	}
	none := Files{Dir: filepath.Join(f.Dir, "none"), Vendor: Global}
	if _, err := none.Names(); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
	if err := none.Set("Boot0001", written, nil); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
}

// What the kernel protects is changed, and protected again.
func TestImmutable(t *testing.T) {
	f := Files{Dir: t.TempDir(), Vendor: Global}
	if err := f.Set("Protected", written, []byte("a")); err != nil {
		t.Fatal(err)
	}
	flags, err := f.flags("Protected")
	if err == nil {
		err = f.setFlags("Protected", flags|immutable)
	}
	if err != nil {
		t.Skipf("this file system, or this user, makes no file immutable: %v", err)
	}
	t.Cleanup(func() { _ = f.setFlags("Protected", flags) })
	if err := os.WriteFile(f.path("Protected"), nil, 0o600); err == nil {
		t.Fatal("it is not immutable")
	}
	if err := f.Set("Protected", written, []byte("b")); err != nil {
		t.Fatal(err)
	}
	if _, v, err := f.Get("Protected"); err != nil || string(v) != "b" {
		t.Errorf("%q %v", v, err)
	}
	if now, err := f.flags("Protected"); err != nil || now&immutable == 0 {
		t.Errorf("not protected again: %#x %v", now, err)
	}
	if err := f.Delete("Protected"); err != nil {
		t.Error(err)
	}
}

func FuzzParseLoadOption(f *testing.F) {
	for _, o := range []LoadOption{option(esp), {Description: "x", Optional: []byte("y")}} {
		data, err := o.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ParseLoadOption(data)
		if err != nil {
			return
		}
		p, path, ok := o.File()
		again, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > len(data) && !strings.ContainsRune(o.Description, 0xfffd) {
			t.Errorf("%d bytes became %d", len(data), len(again))
		}
		if !ok {
			return
		}
		if _, same, ok := (LoadOption{Path: FilePath(p, path)}).File(); !ok || same != path {
			t.Errorf("%q became %q", path, same)
		}
	})
}
