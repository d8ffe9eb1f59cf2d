package config

import "strings"

// Bounds of the named ports of the console.
const (
	MaxPorts    = 8
	MaxPortName = 64
)

// reservedPorts are the names of consoles (hv/vmm), which share a name space with ports
// at the control socket.
var reservedPorts = []string{"serial", "virtio-console"}

// validatePorts checks the names: they stand in paths of the control socket and in the
// guest's sysfs.
func (m *Machine) validatePorts() error {
	if len(m.Ports) > MaxPorts {
		return bad("console_ports", "%d ports of the console: %d are possible", len(m.Ports), MaxPorts)
	}
	seen := map[string]bool{}
	for _, name := range reservedPorts {
		seen[name] = true
	}
	for _, name := range m.Ports {
		odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/\?%#`, r) }
		if name == "" || name == "." || name == ".." || len(name) > MaxPortName || strings.ContainsFunc(name, odd) || seen[name] {
			return bad("console_ports", "%q is no name for a port of the console, or stands twice", name)
		}
		seen[name] = true
	}
	return nil
}
