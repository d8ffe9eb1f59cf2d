// Package mount mounts the kernel's file systems and lays out the control
// groups.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// FS is one file system to mount.
type FS struct {
	Type   string
	Target string
	Flags  uintptr
	Data   string
}

const (
	safe   = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	inRAM  = unix.MS_NOSUID | unix.MS_NODEV
	devDir = unix.MS_NOSUID | unix.MS_NOEXEC
)

// First is what everything else needs, in this order.
var First = []FS{
	{"proc", "/proc", safe, ""},
	{"sysfs", "/sys", safe, ""},
	{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	{"tmpfs", "/run", inRAM, "mode=0755,size=10%"},
	{"cgroup2", "/sys/fs/cgroup", safe, "nsdelegate,memory_recursiveprot"},
}

// Rest is what can come beside the rest of the boot.
var Rest = []FS{
	{"devpts", "/dev/pts", devDir, "mode=0620,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", safe, "mode=1777"},
	{"tmpfs", "/tmp", inRAM, "mode=1777"},
	{"hugetlbfs", "/dev/hugepages", unix.MS_NOSUID | unix.MS_NODEV, "mode=0700"},
	{"securityfs", "/sys/kernel/security", safe, ""},
}

// Variables are those of UEFI firmware; PStore is where last words of a kernel are.
var (
	Variables = []FS{{"efivarfs", "/sys/firmware/efi/efivars", safe, ""}}
	PStore    = []FS{{"pstore", "/sys/fs/pstore", safe, ""}}
)

// links are made after the mounts; a file that is there is left alone.
var links = [][2]string{
	{"/run", "/var/run"},
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

// All mounts a list; what fails does not keep the others from being tried. What
// is mounted already is left as it is.
func All(list []FS) error {
	var errs []error
	for _, f := range list {
		if err := os.MkdirAll(f.Target, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.Mount(f.Type, f.Target, f.Type, f.Flags, f.Data); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", f.Type, f.Target, err))
		}
	}
	return joined(errs)
}

// Links makes the usual symbolic links below root.
func Links(root string) error {
	var errs []error
	for _, l := range links {
		path := filepath.Join(root, l[1])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Symlink(l[0], path); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return joined(errs)
}

// Groups are the control groups below the root, and what each is given. The
// VMs' own groups are made below vm by the daemon.
var Groups = []struct {
	Name     string
	Settings map[string]string
	Delegate bool // its children get the controllers too
}{
	{"init", map[string]string{"cpu.weight": "500", "memory.min": "33554432"}, false},
	{"appliance", map[string]string{"cpu.weight": "300", "memory.min": "67108864"}, false},
	{"vm", nil, true},
}

// controllers are those that VMs are limited with.
var controllers = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}

// MakeGroups makes Groups in the cgroup2 file system at dir.
func MakeGroups(dir string) error {
	var errs []error
	for _, g := range Groups {
		if err := os.Mkdir(filepath.Join(dir, g.Name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return joined(errs)
}

// Join puts this process into its group.
func Join(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "init/cgroup.procs"), []byte("0"), 0o644); err != nil {
		return qverr.New(qverr.CodeOf(err), "control groups: %w", err)
	}
	return nil
}

// Controllers gives Groups their controllers and settings, which takes the kernel
// a while. A controller that it does not have is left out, unless it is memory.
func Controllers(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "control groups: %w", err)
	}
	have := strings.Fields(string(data))
	var enable []string
	for _, c := range controllers {
		if slices.Contains(have, c) {
			enable = append(enable, "+"+c)
		}
	}
	var errs []error
	if !slices.Contains(have, "memory") {
		errs = append(errs, qverr.New(qverr.Unsupported, "the kernel has no memory controller: VMs are not kept from using the node's memory").
			WithHint("remove cgroup_disable=memory from the kernel command line"))
	}
	set := func(file, value string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	all := strings.Join(enable, " ")
	set("cgroup.subtree_control", all)
	for _, g := range Groups {
		for file, value := range g.Settings {
			if controller, _, _ := strings.Cut(file, "."); slices.Contains(have, controller) {
				set(filepath.Join(g.Name, file), value)
			}
		}
		if g.Delegate {
			set(filepath.Join(g.Name, "cgroup.subtree_control"), all)
		}
	}
	return joined(errs)
}

func joined(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return qverr.New(qverr.CodeOf(err), "%w", err)
}
