package ukifile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
)

// sections of a small image, in another order than they are measured in.
func sections(more ...petest.Section) []petest.Section {
	return append([]petest.Section{
		{Name: ".text", Data: "stub"}, {Name: ".sbat", Data: "sbat,1\n"}, {Name: ".osrel", Data: "ID=quantavirt\nNAME=\"Quanta Virt\"\n#X=1\n"},
		{Name: ".uname", Data: "6.12"}, {Name: ".cmdline", Data: "quiet panic=10\n\x00"},
		{Name: ".initrd", Data: "initrd"}, {Name: ".linux", Data: "kernel"},
	}, more...)
}

func open(list []petest.Section) (*File, error) {
	b := petest.Image(0x600, list...)
	return Open(bytes.NewReader(b), int64(len(b)))
}

func TestFile(t *testing.T) {
	f, err := open(sections())
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := f.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(kernel); err != nil || string(data) != "kernel" {
		t.Errorf("kernel %q, %v", data, err)
	}
	if got := initrd(t, f); got != "initrd" {
		t.Errorf("initrd %q", got)
	}
	if line, err := f.Text(Cmdline); err != nil || line != "quiet panic=10" {
		t.Errorf("command line %q, %v", line, err)
	}
	release, err := f.Release()
	if err != nil || len(release) != 2 || release["ID"] != "quantavirt" || release["NAME"] != "Quanta Virt" {
		t.Errorf("os-release %q, %v", release, err)
	}
}

func initrd(t *testing.T, f *File) string {
	t.Helper()
	r, err := f.Initrd()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != f.InitrdSize() {
		t.Errorf("initrd of %d bytes, InitrdSize %d, %v", len(data), f.InitrdSize(), err)
	}
	return string(data)
}

func TestMicrocodeComesFirst(t *testing.T) {
	for code, want := range map[string]string{"ucode": "ucode\x00\x00\x00initrd", "four": "fourinitrd"} {
		f, err := open(sections(petest.Section{Name: ".ucode", Data: code}))
		if err != nil {
			t.Fatal(err)
		}
		if got := initrd(t, f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestUnusable(t *testing.T) {
	for _, c := range []struct {
		name, says string
		list       []petest.Section
	}{
		{"no kernel", "no section .linux", sections()[:6]},
		{"no initrd", "no section .initrd", append(sections()[:5:5], sections()[6])},
		{"empty kernel", "empty", append(sections()[:6:6], petest.Section{Name: ".linux"})},
		{"twice", "two sections", sections(petest.Section{Name: ".cmdline", Data: "x"})},
		{"profiles", "profiles", sections(petest.Section{Name: ".profile", Data: "ID=a"})},
	} {
		if _, err := open(c.list); !errors.Is(err, qverr.Inval) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	f, err := open(sections(petest.Section{Name: ".big", Data: strings.Repeat("x", MaxText+1)}, petest.Section{Name: ".nul", Data: "a\x00b"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".big", ".nul", ".none"} {
		if text, err := f.Text(name); !errors.Is(err, qverr.Inval) {
			t.Errorf("text of %s: %d bytes, %v", name, len(text), err)
		}
	}
}

// The expected values were computed with sha256sum and xxd from the rules of
// systemd-stub(7), not with this package.
func TestMeasure(t *testing.T) {
	f, err := open(sections())
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.Measure()
	if err != nil {
		t.Fatal(err)
	}
	const want = "bb4a76d082b5166aeb687dd4d3f610c92999a9c5761bfdcff045e6158ab14f4b"
	if m.PCR != 11 || m.Bank != "sha256" || m.Value.String() != want {
		t.Errorf("PCR %d %s %s, want %s", m.PCR, m.Bank, m.Value, want)
	}
	var order []string
	for _, s := range m.Sections {
		order = append(order, s.Section)
	}
	if got := strings.Join(order, " "); got != ".linux .osrel .cmdline .initrd .uname .sbat" {
		t.Errorf("order %s", got)
	}
	var text bytes.Buffer
	if err := m.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var again Measurement
	if err := json.Unmarshal(text.Bytes(), &again); err != nil || again.Value != m.Value || len(again.Sections) != 6 {
		t.Errorf("%s came back as %+v, %v", text.String(), again, err)
	}
	if err := json.Unmarshal([]byte(`{"value":"12"}`), &again); err == nil {
		t.Error("took a short digest")
	}
}

func TestMeasureUnknown(t *testing.T) {
	f, err := open(sections(petest.Section{Name: ".hwids", Data: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Measure(); !errors.Is(err, qverr.Unsupported) {
		t.Errorf("got %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(petest.Image(0x600, sections()...))
	f.Add(petest.Image(0x600, sections(petest.Section{Name: ".ucode", Data: "x"})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if r, err := file.Initrd(); err == nil {
			if n, err := io.Copy(io.Discard, r); err != nil || n != file.InitrdSize() {
				t.Errorf("initrd: %d of %d bytes, %v", n, file.InitrdSize(), err)
			}
		}
		_, _ = file.Text(Cmdline)
		_, _ = file.Release()
		_, _ = file.Measure()
	})
}
