package hw

import (
	"os"
	"path/filepath"
	"strconv"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
	"quantavirt/quac100/regs"
)

// Cards binds every QUAC 100 to vfio-pci. A card is recognised by vendor,
// device, class and subsystem together: the vendor number may be in use
// elsewhere.
func (s System) Cards() []wire.Card {
	cards := []wire.Card{}
	devices, _ := filepath.Glob(filepath.Join(s.Sys, "bus/pci/devices/*"))
	for _, dir := range devices {
		if !s.isCard(dir) {
			continue
		}
		c := wire.Card{Address: filepath.Base(dir), Group: -1}
		if err := s.bind(dir, &c); err != nil {
			c.Problem = wire.NewProblem(err)
		} else {
			c.Bound = true
		}
		cards = append(cards, c)
	}
	return cards
}

func (s System) isCard(dir string) bool {
	for file, want := range map[string]uint64{
		"vendor": regs.VendorID, "device": regs.DeviceID, "class": regs.Class,
		"subsystem_vendor": regs.SubVendorID, "subsystem_device": regs.SubDeviceID,
	} {
		got, err := strconv.ParseUint(s.read(dir, file), 0, 32)
		if err != nil || got != want {
			return false
		}
	}
	return true
}

// LoadVFIO loads what gives functions to user space: cards to the daemon, others to VMs.
func (s System) LoadVFIO() error {
	for _, module := range []string{"vfio_pci", "vfio_iommu_type1"} {
		if err := s.Load(module); err != nil {
			return err
		}
	}
	return nil
}

// bind gives the card to vfio-pci, if the IOMMU can isolate it.
func (s System) bind(dir string, c *wire.Card) error {
	group, err := os.Readlink(filepath.Join(dir, "iommu_group"))
	if err != nil {
		return qverr.New(qverr.NoIOMMU, "card %s cannot be used: %w", c.Address, errNoGroup)
	}
	if c.Group, err = strconv.Atoi(filepath.Base(group)); err != nil {
		return qverr.New(qverr.NoIOMMU, "card %s: IOMMU group %s: %w", c.Address, group, err)
	}
	if err := s.LoadVFIO(); err != nil {
		return qverr.New(qverr.QUACDriver, "card %s: %w", c.Address, err)
	}
	bus := vfio.Sysfs{Root: s.Sys}
	if s.Probed != nil {
		bus.Probed = func(string) { s.Probed() }
	}
	if err := bus.Take(c.Address); err != nil {
		return qverr.New(qverr.QUACDriver, "bind card %s to vfio-pci: %w", c.Address, err)
	}
	return s.viable(dir, c)
}

// driver is the name of the driver that a device is bound to, or "".
func driver(dir string) string {
	link, err := os.Readlink(filepath.Join(dir, "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}

// viable checks the neighbours in the group: one that a host driver holds could
// reach the card's memory, and VFIO refuses the group.
func (s System) viable(dir string, c *wire.Card) error {
	members, _ := filepath.Glob(filepath.Join(dir, "iommu_group", "devices", "*"))
	for _, m := range members {
		switch d := driver(m); d {
		case "", "vfio-pci", "pcieport", "pci-stub":
		default:
			return qverr.New(qverr.QUACDriver, "IOMMU group %d of card %s is not viable: %s is bound to %s", c.Group, c.Address, filepath.Base(m), d).
				WithHint("move the card to another slot, or keep the host from using %s", filepath.Base(m))
		}
	}
	return nil
}
