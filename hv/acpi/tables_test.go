package acpi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

var update = flag.Bool("update", false, "write the golden files")

const at = 0xe0000

func machine(cpus int, high uint64) Config {
	c := Config{
		ECAM: Range{0xc000_0000, 1 << 20}, Low: Range{0xd000_0000, 0x2ec0_0000}, High: Range{0x1_0000_0000, high},
		PM: 0x600, GPE: 0x620, Generation: 0xfeff_8000, GenerationEvent: 3, Reset: 0xcf9, ResetValue: 6, SCI: 9, SleepOff: 5, COM1: 0x3f8, COM1IRQ: 4,
		IOAPIC: 0xfec0_0000, LAPIC: 0xfee0_0000,
	}
	for id := range cpus {
		c.APICIDs = append(c.APICIDs, uint32(id))
	}
	return c
}

func build(t *testing.T, c Config) []byte {
	t.Helper()
	blob, err := Build(c, at)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestGolden(t *testing.T) {
	for name, c := range map[string]Config{"one": machine(1, 0), "eight": machine(8, 512<<30), "wide": machine(256, 0)} {
		got := hex.Dump(build(t, c))
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the tables changed:\n%s", name, got)
		}
	}
}

// walk follows the pointers from the RSDP as an operating system would.
func walk(t *testing.T, blob []byte) map[string][]byte {
	t.Helper()
	le := binary.LittleEndian
	sum := func(b []byte) (s byte) {
		for _, v := range b {
			s += v
		}
		return s
	}
	table := func(addr uint64) []byte {
		b := blob[addr-at:]
		return b[:le.Uint32(b[4:])]
	}
	if string(blob[:8]) != "RSD PTR " || sum(blob[:20]) != 0 || sum(blob[:36]) != 0 {
		t.Fatal("bad RSDP")
	}
	found := map[string][]byte{}
	add := func(addr uint64) {
		b := table(addr)
		sig := string(b[:4])
		if sig != "FACS" && sum(b) != 0 {
			t.Errorf("%s: checksum", sig)
		}
		if sig == "FACS" && addr%64 != 0 {
			t.Errorf("FACS at %#x", addr)
		}
		found[sig] = b
	}
	add(le.Uint64(blob[24:]))
	for x := found["XSDT"][36:]; len(x) > 0; x = x[8:] {
		add(le.Uint64(x))
	}
	add(le.Uint64(found["FACP"][140:]))
	add(uint64(le.Uint32(found["FACP"][36:])))
	return found
}

func TestStructure(t *testing.T) {
	tables := walk(t, build(t, machine(3, 1<<30)))
	for _, sig := range []string{"FACP", "APIC", "MCFG", "DSDT", "FACS"} {
		if tables[sig] == nil {
			t.Fatalf("no %s", sig)
		}
	}
	le := binary.LittleEndian
	f := tables["FACP"]
	if len(f) != 276 || le.Uint32(f[56:]) != 0x600 || le.Uint32(f[64:]) != 0x604 || le.Uint32(f[76:]) != 0x608 ||
		le.Uint64(f[120:]) != 0xcf9 || f[128] != 6 || le.Uint32(f[48:]) != 0 {
		t.Errorf("FADT % x", f)
	}
	if n := bytes.Count(tables["APIC"][44:], []byte{0, 8}); n < 3 {
		t.Errorf("MADT has %d LAPICs", n)
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		cpus int
		at   uint64
	}{{0, at}, {1025, at}, {1, at + 1}, {1, 1 << 32}} {
		if _, err := Build(machine(c.cpus, 0), c.at); !errors.Is(err, qverr.Inval) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAML(t *testing.T) {
	long := bytes.Repeat([]byte{0xaa}, 0x1000)
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"zero", integer(0), "00"},
		{"one", integer(1), "01"},
		{"byte", integer(5), "0a05"},
		{"word", integer(0x1234), "0b3412"},
		{"dword", integer(0x12345678), "0c78563412"},
		{"qword", integer(1 << 32), "0e0000000001000000"},
		{"eisa id", eisaID("PNP0A08"), "0c41d00a08"},
		{"root name", segment(`\_SB`), "5c5f53425f"},
		{"name", name("_S5", list(integer(5))), "085f53355f1204010a05"},
		{"short length", packaged(make([]byte, 0x3e))[:1], "3f"},
		{"two bytes of length", packaged(long[:0x3f])[:2], "4104"},
		{"three bytes of length", packaged(long[:0xffe])[:3], "810001"},
		{"text", text("AB"), "0d414200"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestCompiler lets ACPICA take the tables apart and compile them again: they come
// out as they were, without an error, a warning or a remark about what is there.
func TestCompiler(t *testing.T) {
	iasl := hosttool.Path(t, "iasl")
	sparse := machine(0, 512<<30)
	sparse.APICIDs = []uint32{0, 1, 254, 255, 300, 1000}
	for name, c := range map[string]Config{"two CPUs": machine(2, 512<<30), "256 CPUs": machine(256, 0), "wide ids": sparse} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for sig, mine := range walk(t, build(t, c)) {
				compileAgain(t, iasl, filepath.Join(dir, sig), mine)
			}
		})
	}
}

var nothingWrong = regexp.MustCompile(`\b0 (Errors|Warnings)`)

func compileAgain(t *testing.T, iasl, path string, mine []byte) {
	t.Helper()
	if err := os.WriteFile(path+".aml", mine, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-d", path + ".aml"}, {"-oa", "-p", path + "-again", path + ".dsl"}} {
		out, err := exec.Command(iasl, args...).CombinedOutput()
		text := nothingWrong.ReplaceAllString(string(out), "")
		if err != nil || strings.Contains(text, "Invalid") || strings.Contains(text, "Error") || strings.Contains(text, "Warning") {
			t.Errorf("%s: iasl %v: %v\n%s", filepath.Base(path), args, err, out)
			return
		}
	}
	again, err := os.ReadFile(path + "-again.aml")
	if err != nil {
		t.Fatal(err)
	}
	// The compiler writes its own creator id and revision into the header, and the
	// FACS has none.
	from := headerSize
	if string(mine[:4]) == "FACS" {
		from = 0
	}
	if !bytes.Equal(again[from:], mine[from:]) {
		dsl, _ := os.ReadFile(path + ".dsl")
		t.Errorf("%s: ACPICA encodes it otherwise:\n%s\n%s\n%s", filepath.Base(path), dsl, hex.Dump(mine), hex.Dump(again))
	}
}
