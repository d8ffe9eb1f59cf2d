package hw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// machine is a made-up /sys and /proc. It obeys drivers_probe as the kernel
// does, when the module that brings the driver is loaded: the write happens on a
// plain file, so the binding is done when the module is.
type machine struct {
	t *testing.T
	System
	loaded []string
	fail   error
}

func newMachine(t *testing.T, files map[string]string) *machine {
	m := &machine{t: t, System: System{Sys: t.TempDir(), Proc: t.TempDir(), Dev: t.TempDir()}}
	m.Load = func(name string) error { m.loaded = append(m.loaded, name); return m.fail }
	m.TryKVM = func() (*os.File, error) { return nil, nil }
	for name, text := range files {
		m.write(name, text)
	}
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.Sys, name)
	if rest, ok := strings.CutPrefix(name, "proc/"); ok {
		path = filepath.Join(m.Proc, rest)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(target, name string) {
	m.t.Helper()
	path := filepath.Join(m.Sys, name)
	_ = os.Remove(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(m.Sys, target), path); err != nil {
		m.t.Fatal(err)
	}
}

const flags = "processor\t: 0\nflags\t\t: fpu vme %s nx\n\nprocessor\t: 1\nflags\t\t: fpu\n"

func TestKVM(t *testing.T) {
	for _, c := range []struct {
		name      string
		flag      string
		params    map[string]string
		load, try error
		want      wire.KVM
		message   string
	}{
		{"amd", "svm", map[string]string{"npt": "Y", "nested": "1"}, nil, nil, wire.KVM{Available: true, Vendor: "svm", Module: "kvm_amd", NestedPaging: true, Nested: true}, ""},
		{"intel", "vmx", map[string]string{"ept": "N", "nested": "N"}, nil, nil, wire.KVM{Available: true, Vendor: "vmx", Module: "kvm_intel"}, ""},
		{"neither", "sse", nil, nil, nil, wire.KVM{}, "neither svm nor vmx"},
		{"off in firmware", "vmx", nil, qverr.New(qverr.Unsupported, "load: %w", unix.EOPNOTSUPP), nil, wire.KVM{Vendor: "vmx", Module: "kvm_intel"}, "the firmware has disabled it"},
		{"a node that is no proof", "svm", nil, nil, fmt.Errorf("KVM makes no virtual machine: %w", unix.EBUSY), wire.KVM{Vendor: "svm", Module: "kvm_amd"}, "no virtual machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, map[string]string{"proc/cpuinfo": fmt.Sprintf(flags, c.flag)})
			for name, value := range c.params {
				m.write("module/"+c.want.Module+"/parameters/"+name, value+"\n")
			}
			m.fail = c.load
			m.TryKVM = func() (*os.File, error) { return nil, c.try }
			got, _ := m.KVM()
			p := got.Problem
			got.Problem = nil
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			switch {
			case c.message == "" && p != nil:
				t.Errorf("problem %+v", p)
			case c.message != "" && (p == nil || p.Code != int32(qverr.NoVMX) || p.Recovery == "" || !strings.Contains(p.Message, c.message)):
				t.Errorf("problem %+v, want %q", p, c.message)
			}
		})
	}
}

// What opens but is no KVM must not be taken for one.
func TestDeviceNodeIsNoProof(t *testing.T) {
	m := newMachine(t, nil)
	m.TryKVM = nil
	if _, err := m.try(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without a node: %v", err)
	}
	if err := os.WriteFile(filepath.Join(m.Dev, "kvm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.try(); err == nil || !strings.Contains(err.Error(), "KVM speaks") {
		t.Errorf("a plain file: %v", err)
	}
}

func TestIOMMU(t *testing.T) {
	m := newMachine(t, map[string]string{"firmware/acpi/tables/DMAR": "x"})
	if got := m.IOMMU(); got.Available || got.Kind != "intel" || got.Problem == nil || got.Problem.Code != int32(qverr.NoIOMMU) || !strings.Contains(got.Problem.Recovery, "intel_iommu=on") {
		t.Errorf("a table without groups: %+v %+v", got, got.Problem)
	}
	for i, addr := range []string{"0000:00:05.0", "0000:00:1f.0", "0000:00:1f.2"} {
		m.link("bus/pci/devices/"+addr, fmt.Sprintf("kernel/iommu_groups/%d/devices/%s", 10*min(i, 1), addr))
	}
	got := m.IOMMU()
	if !got.Available || got.Problem != nil || len(got.Groups) != 2 || got.Groups[0].ID != 0 || len(got.Groups[1].Devices) != 2 {
		t.Errorf("%+v", got)
	}
	m = newMachine(t, map[string]string{"kernel/iommu_groups/0/name": "vfio-noiommu\n"})
	if got := m.IOMMU(); got.Available || got.Kind != "" || got.Problem == nil || got.Groups == nil {
		t.Errorf("a group without isolation: %+v", got)
	}
}

// card adds a device with the identity of a QUAC 100, in a group.
func (m *machine) card(addr string, group int, change map[string]string) {
	dir := "bus/pci/devices/" + addr
	for file, text := range map[string]string{"vendor": "0x1db7", "device": "0x0100", "class": "0x108000", "subsystem_vendor": "0x1db7", "subsystem_device": "0x0100", "driver_override": "(null)"} {
		if c, ok := change[file]; ok {
			text = c
		}
		m.write(dir+"/"+file, text+"\n")
	}
	m.join(addr, group)
}

func (m *machine) join(addr string, group int) {
	if group >= 0 {
		m.link(fmt.Sprintf("kernel/iommu_groups/%d", group), "bus/pci/devices/"+addr+"/iommu_group")
		m.link("bus/pci/devices/"+addr, fmt.Sprintf("kernel/iommu_groups/%d/devices/%s", group, addr))
	}
}

func (m *machine) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(m.Sys, name))
	return strings.TrimSpace(string(data))
}

func TestCards(t *testing.T) {
	const addr, other = "0000:00:08.0", "0000:00:08.1"
	for _, c := range []struct {
		name    string
		group   int
		prepare func(m *machine)
		binds   string // driver that the kernel picks
		bound   bool
		code    qverr.Code
	}{
		{"alone", 3, nil, "vfio-pci", true, 0},
		{"no IOMMU", -1, nil, "vfio-pci", false, qverr.NoIOMMU},
		{"neighbour in use", 3, func(m *machine) {
			m.write("bus/pci/devices/"+other+"/class", "x")
			m.join(other, 3)
			m.link("bus/pci/drivers/e1000e", "bus/pci/devices/"+other+"/driver")
		}, "vfio-pci", false, qverr.QUACDriver},
		{"neighbours that do no harm", 3, func(m *machine) {
			for i, d := range []string{"pcieport", "vfio-pci", ""} {
				n := fmt.Sprintf("0000:00:09.%d", i)
				m.write("bus/pci/devices/"+n+"/class", "x")
				m.join(n, 3)
				if d != "" {
					m.link("bus/pci/drivers/"+d, "bus/pci/devices/"+n+"/driver")
				}
			}
		}, "vfio-pci", true, 0},
		{"modules missing", 3, func(m *machine) { m.fail = qverr.New(qverr.NoEnt, "module vfio_pci is not in the image") }, "vfio-pci", false, qverr.QUACDriver},
		{"kernel binds nothing", 3, nil, "", false, qverr.QUACDriver},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, map[string]string{"bus/pci/drivers_probe": ""})
			m.card(addr, c.group, nil)
			m.card("0000:00:0a.0", 9, map[string]string{"class": "0x020000"})
			m.card("0000:00:0b.0", 9, map[string]string{"subsystem_vendor": "0x1234"})
			if c.prepare != nil {
				c.prepare(m)
			}
			m.Probed = func() {
				if got := m.read("bus/pci/devices/" + addr + "/driver_override"); got != "vfio-pci" {
					t.Errorf("driver_override %q", got)
				}
				if got := m.read("bus/pci/drivers_probe"); got != addr {
					t.Errorf("drivers_probe %q", got)
				}
				if c.binds != "" {
					m.link("bus/pci/drivers/"+c.binds, "bus/pci/devices/"+addr+"/driver")
				}
			}
			cards := m.Cards()
			if len(cards) != 1 {
				t.Fatalf("%+v", cards)
			}
			got := cards[0]
			if got.Address != addr || got.Group != c.group || got.Bound != c.bound || (got.Problem == nil) != (c.code == 0) || got.Problem != nil && got.Problem.Code != int32(c.code) {
				t.Errorf("%+v %+v", got, got.Problem)
			}
			if c.bound {
				m.Probed = func() { t.Error("a card that is bound was bound again") }
				if again := m.Cards(); !again[0].Bound {
					t.Errorf("again: %+v", again)
				}
			}
		})
	}
}

func TestCardIsTakenFromItsDriver(t *testing.T) {
	const addr = "0000:00:08.0"
	m := newMachine(t, map[string]string{"bus/pci/drivers_probe": "", "bus/pci/drivers/foreign/unbind": ""})
	m.card(addr, 1, nil)
	m.link("bus/pci/drivers/foreign", "bus/pci/devices/"+addr+"/driver")
	m.Probed = func() { m.link("bus/pci/drivers/vfio-pci", "bus/pci/devices/"+addr+"/driver") }
	if cards := m.Cards(); !cards[0].Bound {
		t.Errorf("%+v", cards[0].Problem)
	}
	if got := m.read("bus/pci/drivers/foreign/unbind"); got != addr {
		t.Errorf("unbind %q", got)
	}
}
