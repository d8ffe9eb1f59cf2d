// Package hw finds out what the machine can do for virtual machines: KVM, the
// IOMMU, and QUAC 100 cards, which it binds to vfio-pci. What is missing comes
// back as a problem with its catalogue code; nothing here stops the boot.
package hw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// System is the machine as the kernel shows it; tests replace the roots.
type System struct {
	Sys, Proc, Dev string
	// Load loads a kernel module.
	Load func(name string) error
	// TryKVM makes an empty virtual machine; nil means with the device below Dev.
	TryKVM func() (*os.File, error)
	// Probed is called after a device was given to the kernel's drivers to probe;
	// nil outside tests.
	Probed func()
}

func (s System) read(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// KVM loads the module for the processor and makes an empty virtual machine to
// see whether it works: the device node alone proves nothing. That machine is
// returned, to be kept: while there is one, the kernel leaves virtualization
// switched on. Otherwise it switches every processor on with the first VM and off
// with the last, which costs each lonely start time, and was seen to go wrong
// under QEMU's TCG (an int3 left in finish_task_switch).
func (s System) KVM() (wire.KVM, *os.File) {
	k := wire.KVM{Vendor: s.virtualization()}
	if k.Vendor == "" {
		k.Problem = wire.NewProblem(qverr.New(qverr.NoVMX, "the processor shows neither svm nor vmx"))
		return k, nil
	}
	k.Module = map[string]string{"svm": "kvm_amd", "vmx": "kvm_intel"}[k.Vendor]
	err := s.Load(k.Module)
	var vm *os.File
	if err == nil {
		vm, err = s.try()
	}
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EIO) {
			err = fmt.Errorf("the processor has %s, but the firmware has disabled it: %w", k.Vendor, err)
		}
		k.Problem = wire.NewProblem(qverr.New(qverr.NoVMX, "%w", err))
		return k, nil
	}
	parameters := filepath.Join(s.Sys, "module", k.Module, "parameters")
	paging := map[string]string{"svm": "npt", "vmx": "ept"}[k.Vendor]
	k.Available = true
	k.NestedPaging = on(s.read(parameters, paging))
	k.Nested = on(s.read(parameters, "nested"))
	return k, vm
}

func on(parameter string) bool { return parameter == "Y" || parameter == "1" }

// virtualization is the flag of the first processor: svm, vmx or "".
func (s System) virtualization() string {
	for line := range strings.Lines(s.read(s.Proc, "cpuinfo")) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			if flag == "svm" || flag == "vmx" {
				return flag
			}
		}
		break
	}
	return ""
}

// linux/kvm.h
const (
	kvmGetAPIVersion = 0xAE00
	kvmCreateVM      = 0xAE01
	kvmAPIVersion    = 12
)

func (s System) try() (*os.File, error) {
	if s.TryKVM != nil {
		return s.TryKVM()
	}
	fd, err := unix.Open(filepath.Join(s.Dev, "kvm"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/kvm: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	v, errno := ioctl(fd, kvmGetAPIVersion)
	if errno != 0 || v != kvmAPIVersion {
		return nil, fmt.Errorf("KVM speaks version %d, not %d (%w)", int(v), kvmAPIVersion, errno)
	}
	vm, errno := ioctl(fd, kvmCreateVM)
	if errno != 0 {
		return nil, fmt.Errorf("KVM makes no virtual machine: %w", errno)
	}
	unix.CloseOnExec(int(vm))
	return os.NewFile(vm, "empty VM"), nil
}

// ioctl tries again after a signal, of which a Go program gets many: making a VM
// takes all locks of the address space and gives up if one is pending.
func ioctl(fd int, request uintptr) (uintptr, syscall.Errno) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, 0)
		if errno != unix.EINTR {
			return r, errno
		}
	}
}

// IOMMU looks for the ACPI table and for what the kernel made of it.
func (s System) IOMMU() wire.IOMMU {
	io := wire.IOMMU{Groups: []wire.Group{}}
	for table, kind := range map[string]string{"DMAR": "intel", "IVRS": "amd"} {
		if _, err := os.Stat(filepath.Join(s.Sys, "firmware/acpi/tables", table)); err == nil {
			io.Kind = kind
		}
	}
	groups, _ := filepath.Glob(filepath.Join(s.Sys, "kernel/iommu_groups/*"))
	for _, dir := range groups {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || s.read(dir, "name") == "vfio-noiommu" { // no isolation at all
			continue
		}
		g := wire.Group{ID: id, Devices: []string{}}
		devices, _ := filepath.Glob(filepath.Join(dir, "devices/*"))
		for _, d := range devices {
			g.Devices = append(g.Devices, filepath.Base(d))
		}
		io.Groups = append(io.Groups, g)
	}
	slices.SortFunc(io.Groups, func(a, b wire.Group) int { return a.ID - b.ID })
	io.Available = len(io.Groups) > 0
	switch {
	case io.Available:
	case io.Kind == "":
		io.Problem = wire.NewProblem(qverr.New(qverr.NoIOMMU, "the firmware describes no IOMMU (neither DMAR nor IVRS): no device can be passed through"))
	default:
		io.Problem = wire.NewProblem(qverr.New(qverr.NoIOMMU, "the firmware describes an IOMMU (%s), but the kernel does not use it", io.Kind).
			WithHint("%s", iommuHints[io.Kind]))
	}
	return io
}

// iommuHints say how to switch an IOMMU on that is there.
var iommuHints = map[string]string{
	"intel": "add intel_iommu=on to the kernel command line",
	"amd":   "remove amd_iommu=off from the kernel command line; the virtual build's kernel has no driver for it, the hardware build's has",
}

// errNoGroup is wrapped by the problem of a card without a group.
var errNoGroup = errors.New("it is in no IOMMU group")
