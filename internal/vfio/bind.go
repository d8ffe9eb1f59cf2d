package vfio

import (
	"os"
	"path/filepath"

	"quantavirt/internal/qverr"
)

// Driver is the kernel's name of the driver that gives functions to user space.
const Driver = "vfio-pci"

// Sysfs binds PCI functions to drivers by /sys (Documentation/ABI/testing/sysfs-bus-pci).
type Sysfs struct {
	Root string // "/sys"
	// Unbound and Probed are called after a function was taken from its driver, and after
	// it was given to the kernel's drivers to probe; nil outside tests.
	Unbound, Probed func(address string)
}

func (s Sysfs) dir(address string) string { return filepath.Join(s.Root, "bus/pci/devices", address) }

// DriverOf is the driver that a function is bound to, "" for none.
func (s Sysfs) DriverOf(address string) string {
	link, err := os.Readlink(filepath.Join(s.dir(address), "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}

// Take binds a function to vfio-pci, after its driver let go.
func (s Sysfs) Take(address string) error {
	if s.DriverOf(address) == Driver {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.dir(address), "driver_override"), []byte(Driver), 0o200); err != nil {
		return err
	}
	if err := s.unbind(address); err != nil {
		return err
	}
	if err := s.probe(address); err != nil {
		return err
	}
	if d := s.DriverOf(address); d != Driver {
		return qverr.New(qverr.Busy, "the kernel bound %s to %q", address, d)
	}
	return nil
}

// GiveBack takes a function from vfio-pci and binds it to the driver that it had before
// Take, "" for none. It waits until nobody has the function open.
func (s Sysfs) GiveBack(address, driver string) error {
	if driver == Driver || s.DriverOf(address) == driver {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.dir(address), "driver_override"), []byte("\n"), 0o200); err != nil {
		return err
	}
	if err := s.unbind(address); err != nil || driver == "" {
		return err
	}
	if err := s.probe(address); err != nil {
		return err
	}
	if d := s.DriverOf(address); d != driver {
		return qverr.New(qverr.Busy, "the kernel bound %s to %q, not to %q as before", address, d, driver)
	}
	return nil
}

func (s Sysfs) unbind(address string) error {
	if s.DriverOf(address) == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.dir(address), "driver", "unbind"), []byte(address), 0o200); err != nil {
		return err
	}
	if s.Unbound != nil {
		s.Unbound(address)
	}
	return nil
}

func (s Sysfs) probe(address string) error {
	if err := os.WriteFile(filepath.Join(s.Root, "bus/pci/drivers_probe"), []byte(address), 0o200); err != nil {
		return err
	}
	if s.Probed != nil {
		s.Probed(address)
	}
	return nil
}
