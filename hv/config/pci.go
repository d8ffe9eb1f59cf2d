package config

import (
	"regexp"
)

// MaxPCI is how many functions of the host a VM may have.
const MaxPCI = 16

// PCI is a function of the host.
type PCI struct {
	Address string `json:"address"` // on the host, 0000:01:00.0
	Device  string `json:"device"`  // descriptor name of the open VFIO device
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func (m *Machine) validatePCI() error {
	if len(m.PCI) > MaxPCI {
		return bad("pci", "%d functions of the host: %d are possible", len(m.PCI), MaxPCI)
	}
	if len(m.PCI) > 0 && m.VFIO == "" {
		return bad("vfio", "no descriptor is named")
	}
	if len(m.PCI) > 0 && m.Balloon != nil {
		return bad("balloon", "functions of the host pin all memory: there can be no balloon")
	}
	seen := map[string]bool{}
	for _, p := range m.PCI {
		switch {
		case !pciAddress.MatchString(p.Address):
			return bad("pci.address", "%q is no PCI address", p.Address)
		case seen[p.Address]:
			return bad("pci.address", "%s stands twice", p.Address)
		case p.Device == "":
			return bad("pci.device", "%s names no descriptor", p.Address)
		}
		seen[p.Address] = true
	}
	return nil
}
