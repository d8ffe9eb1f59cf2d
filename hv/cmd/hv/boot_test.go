package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// What firmware starts is on the disks, and shows on the serial port.
func TestBootOptions(t *testing.T) {
	for _, c := range []struct {
		name    string
		args    []string
		ok      bool
		console string
	}{
		{"kernel", []string{"--kernel", "k"}, true, vmm.ConsoleVirtio},
		{"firmware", []string{"--firmware", "f"}, true, vmm.ConsoleSerial},
		{"firmware with a console", []string{"--firmware", "f", "--console", vmm.ConsoleVirtio}, true, vmm.ConsoleVirtio},
		{"nothing", nil, false, ""},
		{"both", []string{"--firmware", "f", "--kernel", "k"}, false, ""},
		{"command line", []string{"--firmware", "f", "--cmdline", "quiet"}, false, ""},
		{"initrd", []string{"--firmware", "f", "--initrd", "i"}, false, ""},
		{"order of a kernel", []string{"--kernel", "k", "--boot", "disk0"}, false, ""},
		{"ROM of a kernel", []string{"--kernel", "k", "--net-rom", "r"}, false, ""},
	} {
		o, err := parseOptions(c.args)
		if (err == nil) != c.ok || err != nil && qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && o.console != c.console {
			t.Errorf("%s: console %s, want %s", c.name, o.console, c.console)
		}
	}
}

func TestFirmwareFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"bios", "rom", "a", "b"} {
		if err := os.WriteFile(path(name), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		more []string
		want []string
	}{
		{nil, []string{"disk0", "disk1"}},
		{[]string{"--boot", "disk1"}, []string{"disk1"}},
	} {
		o, err := parseOptions(append([]string{"--firmware", path("bios"), "--net-rom", path("rom"), "--disk", path("a"), "--disk", path("b") + ",ro"}, c.more...))
		if err != nil {
			t.Fatal(err)
		}
		spec := vmm.Spec{Files: map[string]*os.File{}}
		if err := o.fill(&spec); err != nil {
			t.Fatal(err)
		}
		b := spec.Machine.Boot
		if err := spec.Machine.Validate(); err != nil || spec.Files[b.Firmware] == nil || spec.Files[b.NetROM] == nil || !slices.Equal(b.Order, c.want) {
			t.Errorf("%v: %+v, %v", c.more, b, err)
		}
		for _, f := range spec.Files {
			f.Close()
		}
	}
}
