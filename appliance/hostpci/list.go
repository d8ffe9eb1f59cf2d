package hostpci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// function is what the kernel knows of one.
type function struct {
	address        string
	class          uint32 // 0xCCSSII
	vendor, device uint16
	driver         string
	group          int      // -1 for none
	members        []string // of the group, itself too
	uses           []string // what of the node is on it
}

// bridge tells functions that no VM can have.
func (f *function) bridge() bool { return f.class>>16 == 0x06 }

// harmless tells bridges that may stay with the host when a VM has the rest of their group:
// those between buses, whose driver does no DMA, and those without a driver (the kernel's
// vfio_dev_viable).
func (f *function) harmless() bool { return f.bridge() && (f.class>>8 == 0x0604 || f.driver == "") }

func (f *function) title() string {
	s := f.address + " (" + className(f.class)
	if f.driver != "" {
		s += ", driver " + f.driver
	}
	return s + ")"
}

// tree is the machine as the kernel shows it; tests have their own.
type tree struct {
	sys  string // "/sys"
	proc string // "/proc"
}

func (t tree) dir(address string) string { return filepath.Join(t.sys, "bus/pci/devices", address) }

// list is all functions by address.
func (t tree) list() ([]function, error) {
	entries, err := os.ReadDir(t.dir(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no PCI
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "PCI functions: %w", err)
	}
	mounted := t.mounted()
	var all []function
	for _, e := range entries {
		f, err := t.read(e.Name(), mounted)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was taken out just now
		}
		if err != nil {
			return nil, qverr.New(qverr.IO, "PCI function %s: %w", e.Name(), err)
		}
		all = append(all, f)
	}
	return all, nil
}

func (t tree) read(address string, mounted map[string]string) (function, error) {
	f := function{address: address, group: -1, driver: (vfio.Sysfs{Root: t.sys}).DriverOf(address)}
	for file, to := range map[string]func(uint64){
		"class":  func(v uint64) { f.class = uint32(v) },
		"vendor": func(v uint64) { f.vendor = uint16(v) },
		"device": func(v uint64) { f.device = uint16(v) },
	} {
		text, err := os.ReadFile(filepath.Join(t.dir(address), file))
		if err != nil {
			return f, err
		}
		v, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 32)
		if err != nil {
			return f, err
		}
		to(v)
	}
	link, err := os.Readlink(filepath.Join(t.dir(address), "iommu_group"))
	if err == nil {
		if f.group, err = strconv.Atoi(filepath.Base(link)); err != nil {
			return f, err
		}
		members, _ := filepath.Glob(filepath.Join(t.dir(address), "iommu_group/devices/*"))
		for _, m := range members {
			f.members = append(f.members, filepath.Base(m))
		}
	}
	if !f.bridge() { // below it are others
		f.uses = t.uses(address, mounted)
	}
	return f, nil
}

// uses names what the node itself has on a function: network devices that are up and
// disks that are mounted or part of something else. To lose them would cut the node off.
// Links lead elsewhere and are not followed.
func (t tree) uses(address string, mounted map[string]string) (uses []string) {
	dir, err := filepath.EvalSymlinks(t.dir(address))
	if err != nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // what is gone is in use by nobody
		}
		switch filepath.Base(filepath.Dir(path)) {
		case "net":
			const up = 1 // IFF_UP
			if v, err := strconv.ParseUint(readWord(filepath.Join(path, "flags")), 0, 32); err == nil && v&up != 0 {
				uses = append(uses, "network "+e.Name())
			}
			return fs.SkipDir
		case "block":
			if t.diskUsed(path, mounted) {
				uses = append(uses, "disk "+e.Name())
			}
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(uses)
	return uses
}

// diskUsed looks at a disk and its partitions.
func (t tree) diskUsed(dir string, mounted map[string]string) bool {
	parts, _ := filepath.Glob(filepath.Join(dir, filepath.Base(dir)+"*"))
	for _, d := range append(parts, dir) {
		if _, is := mounted[readWord(filepath.Join(d, "dev"))]; is {
			return true
		}
		if holders, err := os.ReadDir(filepath.Join(d, "holders")); err == nil && len(holders) > 0 {
			return true
		}
	}
	return false
}

// mounted is where block devices are mounted, by major:minor.
func (t tree) mounted() map[string]string {
	out := map[string]string{}
	data, _ := os.ReadFile(filepath.Join(t.proc, "self/mountinfo"))
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 {
			out[f[2]] = f[4]
		}
	}
	return out
}

func readWord(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}

// className says what a class is (PCI Code and ID Assignment 1.11).
func className(class uint32) string {
	for _, n := range classNames {
		if class>>n.shift == n.class {
			return n.name
		}
	}
	return "other device"
}

var classNames = []struct {
	class uint32
	shift int
	name  string
}{
	{0x0100, 8, "SCSI controller"}, {0x0101, 8, "IDE controller"}, {0x0104, 8, "RAID controller"}, {0x0106, 8, "SATA controller"},
	{0x0107, 8, "SAS controller"}, {0x0108, 8, "NVMe controller"}, {0x01, 16, "storage controller"},
	{0x0200, 8, "Ethernet controller"}, {0x0207, 8, "InfiniBand controller"}, {0x02, 16, "network controller"},
	{0x0300, 8, "VGA controller"}, {0x0302, 8, "3D controller"}, {0x03, 16, "display controller"},
	{0x0403, 8, "audio device"}, {0x04, 16, "multimedia device"}, {0x05, 16, "memory controller"},
	{0x0600, 8, "host bridge"}, {0x0601, 8, "ISA bridge"}, {0x0604, 8, "PCI bridge"}, {0x06, 16, "bridge"},
	{0x07, 16, "communication controller"}, {0x08, 16, "system peripheral"}, {0x09, 16, "input device"},
	{0x0c03, 8, "USB controller"}, {0x0c05, 8, "SMBus controller"}, {0x0c, 16, "serial bus controller"}, {0x0d, 16, "wireless controller"},
	{0x1080, 8, "encryption controller"}, {0x10, 16, "encryption controller"}, {0x11, 16, "signal processor"}, {0x12, 16, "accelerator"},
}
