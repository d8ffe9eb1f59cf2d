package config

import (
	"encoding/hex"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
)

// A machine type names what a guest finds where: memory map, ACPI tables, slots of
// the PCI bus, ports. A VM keeps the type that it was made with; when any of these
// must change there is a new type, and the code that reads Machine.Type makes both.
const (
	// FirstMachineType is that of VMs which were made before types were recorded.
	FirstMachineType = "qv-1"
	// MachineType is the newest, which new VMs get.
	MachineType = "qv-1"
)

// MachineTypes lists the types that this version can make, oldest first.
func MachineTypes() []string { return []string{FirstMachineType} }

// CheckMachineType refuses a type that this version cannot make, such as that of a
// newer one, with QV_ERR_UNSUPPORTED.
func CheckMachineType(name string) error {
	if !slices.Contains(MachineTypes(), name) {
		return qverr.New(qverr.Unsupported, "machine type %.64q is unknown; this version has %s", name, strings.Join(MachineTypes(), ", "))
	}
	return nil
}

// GenerationID is Generation as bytes, in the order of its digits.
func (m *Machine) GenerationID() (id [16]byte, err error) {
	if m.Generation == "" {
		return id, nil
	}
	digits, err := hex.DecodeString(strings.ReplaceAll(m.Generation, "-", ""))
	if err != nil || copy(id[:], digits) != len(digits) || len(digits) != len(id) {
		return id, bad("generation", "%.64q is no UUID", m.Generation)
	}
	return id, nil
}
