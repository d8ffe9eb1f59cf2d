// Package hw finds out what the machine can do for virtual machines: KVM, the
// IOMMU, and QUAC 100 cards, which it binds to vfio-pci. What is missing comes
// back as a problem with its catalogue code; nothing here stops the boot.
package hw

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// System is the machine as the kernel shows it; tests replace the roots.
type System struct {
	Sys, Proc, Dev string
	// Load loads a kernel module.
	Load func(name string) error
}

// Problem gives an error the form in which PID 1 reports it.
func Problem(err error) *initapi.Problem {
	if err == nil {
		return nil
	}
	e := qverr.From(err)
	p := &initapi.Problem{Code: int32(e.Code), Message: e.Message, Recovery: e.Hint}
	if row, ok := qverr.Lookup(e.Code); ok {
		p.Name = row.Name
		if p.Recovery == "" {
			p.Recovery = strings.Join(row.Recovery, "; ")
		}
	}
	return p
}

func (s System) read(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// KVM loads the module for the processor and makes a virtual machine to see
// whether it works: the device node alone proves nothing.
func (s System) KVM() initapi.KVM {
	k := initapi.KVM{Vendor: s.virtualization()}
	if k.Vendor == "" {
		k.Problem = Problem(qverr.New(qverr.NoVMX, "the processor shows neither svm nor vmx"))
		return k
	}
	k.Module = map[string]string{"svm": "kvm_amd", "vmx": "kvm_intel"}[k.Vendor]
	if err := s.Load(k.Module); err != nil {
		k.Problem = Problem(qverr.New(qverr.NoVMX, "%w", err))
		return k
	}
	if err := s.tryKVM(); err != nil {
		k.Problem = Problem(qverr.New(qverr.NoVMX, "%w", err))
		return k
	}
	parameters := filepath.Join(s.Sys, "module", k.Module, "parameters")
	paging := map[string]string{"svm": "npt", "vmx": "ept"}[k.Vendor]
	k.Available = true
	k.NestedPaging = on(s.read(parameters, paging))
	k.Nested = on(s.read(parameters, "nested"))
	return k
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

const kvmCreateVM = 0xAE01 // KVM_CREATE_VM, linux/kvm.h

func (s System) tryKVM() error {
	fd, err := unix.Open(filepath.Join(s.Dev, "kvm"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return qverr.New(qverr.NoVMX, "open /dev/kvm: %w", err)
	}
	defer unix.Close(fd)
	vm, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), kvmCreateVM, 0)
	if errno != 0 {
		return qverr.New(qverr.NoVMX, "KVM makes no virtual machine: %w", errno)
	}
	return unix.Close(int(vm))
}

// IOMMU looks for the ACPI table and for what the kernel made of it.
func (s System) IOMMU() initapi.IOMMU {
	io := initapi.IOMMU{Groups: []initapi.Group{}}
	for table, kind := range map[string]string{"DMAR": "intel", "IVRS": "amd"} {
		if _, err := os.Stat(filepath.Join(s.Sys, "firmware/acpi/tables", table)); err == nil {
			io.Kind = kind
		}
	}
	groups, _ := filepath.Glob(filepath.Join(s.Sys, "kernel/iommu_groups/*"))
	for _, dir := range groups {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		g := initapi.Group{ID: id, Devices: []string{}}
		devices, _ := filepath.Glob(filepath.Join(dir, "devices/*"))
		for _, d := range devices {
			g.Devices = append(g.Devices, filepath.Base(d))
		}
		io.Groups = append(io.Groups, g)
	}
	slices.SortFunc(io.Groups, func(a, b initapi.Group) int { return a.ID - b.ID })
	io.Available = len(io.Groups) > 0
	switch {
	case io.Available:
	case io.Kind == "":
		io.Problem = Problem(qverr.New(qverr.NoIOMMU, "the firmware describes no IOMMU (neither DMAR nor IVRS)"))
	default:
		io.Problem = Problem(qverr.New(qverr.NoIOMMU, "the firmware describes an IOMMU, the kernel uses none"))
	}
	return io
}

// errNoGroup is wrapped by the problem of a card without a group.
var errNoGroup = errors.New("it is in no IOMMU group")
