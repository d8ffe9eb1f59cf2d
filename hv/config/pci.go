package config

import "strings"

// MaxPCI is how many functions of the host a VM may have.
const MaxPCI = 16

// PCI is a function of the host.
type PCI struct {
	Address string `json:"address"` // on the host, 0000:01:00.0
	Device  string `json:"device"`  // descriptor name of the open VFIO device
}

// isPCIAddress tells addresses like 0000:01:00.0. A regular expression would be
// 240 KB of what each VM process maps.
func isPCIAddress(s string) bool {
	hex := func(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
	return len(s) == 12 && hex(s[:4]) && s[4] == ':' && hex(s[5:7]) && s[7] == ':' && hex(s[8:10]) && s[10] == '.' && s[11] >= '0' && s[11] <= '7'
}

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
		case !isPCIAddress(p.Address):
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
