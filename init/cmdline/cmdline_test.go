package cmdline

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

const line = `BOOT_IMAGE=/vmlinuz console=tty0 console=ttyS0,115200n8 console=ttyS0 console=uart,io,0x3f8 quiet ` +
	`quantavirt.token-hash=sha256:abc quantavirt.hostname=node-1 quantavirt.debug quantavirt.rescue=off quantavirt.tls.policy=compatible ` +
	`kvm-amd.nested=0 kvm_amd.npt=1 dyndbg="file x +p" foo.bar="a b" foo.flag quantavirt.nonsense=1 quantavirt.hostname=node-2 ` +
	"modprobe.blacklist=ahci,sp5100-tco -- quantavirt.rescue\n"

func TestParse(t *testing.T) {
	l := Parse(line)
	if want := map[string]string{"token-hash": "sha256:abc", "hostname": "node-2", "debug": "", "rescue": "off", "tls.policy": "compatible", "nonsense": "1"}; !reflect.DeepEqual(l.Options(), want) {
		t.Errorf("options: %v", l.Options())
	}
	if !l.Flag(OptDebug) || l.Flag(OptRescue) || l.Flag(OptConfig) {
		t.Error("flags")
	}
	if err := l.Problem(); !errors.Is(err, qverr.Config) || !strings.Contains(err.Error(), "quantavirt.nonsense") || strings.Contains(err.Error(), "tls") {
		t.Errorf("problem: %v", err)
	}
	if got := l.Consoles(); !slices.Equal(got, []string{"tty0", "ttyS0"}) {
		t.Errorf("consoles: %v", got)
	}
	if s := l.Shown(); strings.Contains(s, "abc") || !strings.Contains(s, "quantavirt.token-hash=...") || !strings.Contains(s, "dyndbg=file x +p") {
		t.Errorf("shown: %s", s)
	}
	for module, want := range map[string]string{"kvm_amd": "nested=0 npt=1", "foo": `bar="a b" flag`, "bar": ""} {
		if got := l.ModuleParams(module); got != want {
			t.Errorf("parameters of %s: %q", module, got)
		}
	}
	if got := l.Blacklist(); !slices.Equal(got, []string{"ahci", "sp5100_tco"}) {
		t.Errorf("blacklist: %v", got)
	}
}

func TestParseNothing(t *testing.T) {
	l := Parse("\n")
	if len(l.Options()) != 0 || l.Problem() != nil || !slices.Equal(l.Consoles(), []string{"console"}) || l.Shown() != "" {
		t.Errorf("%+v", l)
	}
}

// The page describes every option and no other.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/kernel-command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	described := make(map[string]bool)
	for row := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(row, "| `"+Prefix); ok {
			name, _, _ := strings.Cut(rest, "`")
			name, _, _ = strings.Cut(name, "=")
			described[name] = true
		}
	}
	for name := range known {
		if !described[name] {
			t.Errorf("%s%s is not described", Prefix, name)
		}
	}
	for name := range described {
		if _, ok := known[name]; !ok {
			t.Errorf("%s%s is described, but not known", Prefix, name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(line)
	f.Fuzz(func(t *testing.T, text string) {
		l := Parse(text)
		l.Consoles()
		l.ModuleParams("kvm")
		if again := Parse(l.Shown()); !strings.ContainsAny(text, "\"") && len(again.words) != len(l.words) {
			t.Errorf("%q: %q", l.words, again.words)
		}
	})
}
