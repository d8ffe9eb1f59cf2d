package config

import (
	"strings"

	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

// Bounds of a machine.
const (
	MaxCPUs    = 256
	MinMemory  = 16 << 20
	MaxMemory  = 1 << 42
	MaxDisks   = 16
	MaxNICs    = 16
	MaxQueues  = 64
	MaxCmdline = 2047
	MaxSerial  = 20
	MinMTU     = 68
	MaxMTU     = 65535
	MinCID     = 3
	// MaxDevices is how many disks, network devices and functions of the host there
	// may be together: the PCI bus has 31 slots, and three are taken; a balloon takes
	// a fourth.
	MaxDevices = 28
)

// Validate checks everything that can be checked without opening a file. Its
// errors carry QV_ERR_CONFIG and the path of the bad field.
func (m *Machine) Validate() error {
	if m.Name == "" || strings.ContainsAny(m.Name, "/\x00") {
		return bad("name", "%q is no name", m.Name)
	}
	if m.Type != "" {
		if err := CheckMachineType(m.Type); err != nil {
			return qverr.From(err).With("path", "type")
		}
	}
	if _, err := m.GenerationID(); err != nil {
		return err
	}
	if err := m.validateCPU(); err != nil {
		return err
	}
	if err := m.validateMemory(); err != nil {
		return err
	}
	if err := m.validateBoot(); err != nil {
		return err
	}
	if err := m.validateDisks(); err != nil {
		return err
	}
	if err := m.validateNICs(); err != nil {
		return err
	}
	if err := m.validateBalloon(); err != nil {
		return err
	}
	if err := m.validatePorts(); err != nil {
		return err
	}
	if err := (limit.Limits{Bytes: m.RNGLimit}).Validate(); err != nil {
		return bad("rng_limit", "%w", err)
	}
	if err := m.validatePCI(); err != nil {
		return err
	}
	most := MaxDevices
	if m.Balloon != nil {
		most--
	}
	if n := len(m.Disks) + len(m.NICs) + len(m.PCI); n > most {
		return qverr.New(qverr.Limit, "%d disks, network devices and functions of the host: %d are possible together", n, most).With("path", "disks")
	}
	return m.validateVsock()
}

// Files lists the names of the descriptors that the machine refers to, besides
// those that every VM process gets.
func (m *Machine) Files() []string {
	var names []string
	add := func(list ...string) {
		for _, name := range list {
			if name != "" {
				names = append(names, name)
			}
		}
	}
	add(m.Boot.files()...)
	add(m.ConsoleLog, m.SerialLog)
	for _, d := range m.Disks {
		add(d.File)
	}
	for i := range m.NICs {
		add(m.NICs[i].TAPs()...)
		add(m.NICs[i].Vhosts()...)
	}
	if m.Vsock != nil {
		add(m.Vsock.Vhost, m.Vsock.Sockets)
	}
	if len(m.PCI) > 0 {
		add(m.VFIO)
	}
	for _, p := range m.PCI {
		add(p.Device)
	}
	return names
}

func bad(path, format string, args ...any) error {
	return qverr.New(qverr.Config, format, args...).With("path", path)
}
