package hostpci

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quantavirt/internal/vfio"
)

// machine is a /sys in a folder, whose drivers do as the kernel's.
type machine struct {
	t      *testing.T
	root   string
	cards  *cards
	log    strings.Builder
	opened [][]string
	fail   error // of the next open
}

type cards struct {
	mu        sync.Mutex
	addresses []string
	lent      map[string]string
	returned  chan string
}

func (c *cards) Addresses(context.Context) ([]string, error) { return c.addresses, nil }
func (c *cards) Lend(_ context.Context, address, vm string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent[address] = vm
}
func (c *cards) Return(_ context.Context, address string) {
	c.mu.Lock()
	delete(c.lent, address)
	c.mu.Unlock()
	c.returned <- address
}

func newMachine(t *testing.T) (*machine, *Service) {
	m := &machine{t: t, root: t.TempDir(), cards: &cards{lent: map[string]string{}, returned: make(chan string, 4)}}
	m.write("proc/self/mountinfo", "36 35 8:2 / /data rw - ext4 /dev/sda2 rw\n")
	m.write("sys/bus/pci/drivers_probe", "")
	for _, d := range []string{"e1000e", "snd_hda_intel", "ahci", "xhci_hcd", "lpc_ich", "vfio-pci"} {
		m.write("sys/bus/pci/drivers/"+d+"/unbind", "")
	}
	m.add("0000:00:00.0", 0x060000, 0, "")
	m.add("0000:00:1c.0", 0x060400, 1, "")              // a port, in one group with what is behind it
	m.add("0000:01:00.0", 0x020000, 1, "e1000e")        // up
	m.add("0000:02:00.0", 0x030000, 2, "")              // a display, whose sound
	m.add("0000:02:00.1", 0x040300, 2, "snd_hda_intel") // is beside it
	m.add("0000:03:00.0", 0x010601, 3, "ahci")
	m.add("0000:04:00.0", 0x0c0330, 4, "xhci_hcd")
	m.add("0000:05:00.0", 0x108000, 5, "vfio-pci") // a card
	m.add("0000:06:00.0", 0x108000, 6, "vfio-pci") // and another
	m.add("0000:07:00.0", 0x020000, -1, "e1000e")
	m.add("0000:08:00.0", 0x060100, 8, "lpc_ich") // a chipset
	m.add("0000:08:00.2", 0x0c0500, 8, "")
	m.add("0000:09:00.0", 0x0c0330, 9, "xhci_hcd") // a card, one part of which is up
	m.add("0000:09:00.1", 0x020000, 9, "e1000e")
	m.write("sys/bus/pci/devices/0000:09:00.1/net/eth1/flags", "0x1003\n")
	m.cards.addresses = []string{"0000:05:00.0", "0000:06:00.0"}
	m.write("sys/bus/pci/devices/0000:01:00.0/net/eth0/flags", "0x1003\n")
	m.write("sys/bus/pci/devices/0000:03:00.0/ata1/host0/target0/0:0/block/sda/dev", "8:0\n")
	m.write("sys/bus/pci/devices/0000:03:00.0/ata1/host0/target0/0:0/block/sda/sda2/dev", "8:2\n")
	s := newService(slog.New(slog.NewTextHandler(&m.log, nil)), m.cards, tree{filepath.Join(m.root, "sys"), filepath.Join(m.root, "proc")},
		vfio.Sysfs{Root: filepath.Join(m.root, "sys"), Unbound: m.unbind, Probed: m.probe})
	s.open = func(addresses []string) (*vfio.Assignment, error) {
		m.opened = append(m.opened, addresses)
		return &vfio.Assignment{}, m.fail
	}
	t.Cleanup(s.Close)
	return m, s
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(target, name string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(m.path(target), m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) add(address string, class, group int, driver string) {
	dir := "sys/bus/pci/devices/" + address
	m.write(dir+"/class", fmt.Sprintf("%#06x\n", class))
	m.write(dir+"/vendor", "0x8086\n")
	m.write(dir+"/device", "0x10d3\n")
	m.write(dir+"/driver_override", "(null)\n")
	m.write("home/"+address, driver) // the driver that its kernel has for it
	if group >= 0 {
		g := fmt.Sprintf("sys/kernel/iommu_groups/%d", group)
		m.link(dir, g+"/devices/"+address)
		m.link(g, dir+"/iommu_group")
	}
	if driver != "" {
		m.link("sys/bus/pci/drivers/"+driver, dir+"/driver")
	}
}

func (m *machine) read(name string) string {
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// unbind does what a write to a driver's unbind does.
func (m *machine) unbind(address string) {
	if err := os.Remove(m.path("sys/bus/pci/devices/" + address + "/driver")); err != nil {
		m.t.Error(err)
	}
}

// probe does what a write to drivers_probe does.
func (m *machine) probe(address string) {
	driver := m.read("sys/bus/pci/devices/" + address + "/driver_override")
	if driver == "" || driver == "(null)" {
		driver = m.read("home/" + address)
	}
	m.link("sys/bus/pci/drivers/"+driver, "sys/bus/pci/devices/"+address+"/driver")
}

func (m *machine) driver(address string) string {
	return (vfio.Sysfs{Root: m.path("sys")}).DriverOf(address)
}
