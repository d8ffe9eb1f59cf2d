package config

import (
	"strings"

	"quantavirt/internal/qverr"
)

// Bounds of a machine.
const (
	MaxCPUs    = 8
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
	// MaxDevices is how many disks and network devices there may be together: the
	// PCI bus has 31 slots, and three are taken; a balloon takes a fourth.
	MaxDevices = 28
)

// Validate checks everything that can be checked without opening a file. Its
// errors carry QV_ERR_CONFIG and the path of the bad field.
func (m *Machine) Validate() error {
	if m.Name == "" || strings.ContainsAny(m.Name, "/\x00") {
		return bad("name", "%q is no name", m.Name)
	}
	if m.CPUs < 1 || m.CPUs > MaxCPUs {
		return bad("cpus", "%d vCPUs: 1 to %d are possible", m.CPUs, MaxCPUs)
	}
	if m.Memory < MinMemory || m.Memory > MaxMemory || m.Memory%4096 != 0 {
		return bad("memory_bytes", "%d bytes of memory: a multiple of 4096 from 16 MiB to 4 TiB is needed", m.Memory)
	}
	if m.Boot.Kernel == "" {
		return bad("boot.kernel", "no kernel is named")
	}
	if len(m.Boot.Cmdline) > MaxCmdline || strings.ContainsRune(m.Boot.Cmdline, 0) {
		return bad("boot.cmdline", "the kernel command line has %d bytes, or a zero byte; %d are possible",
			len(m.Boot.Cmdline), MaxCmdline)
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
	most := MaxDevices
	if m.Balloon != nil {
		most--
	}
	if n := len(m.Disks) + len(m.NICs); n > most {
		return qverr.New(qverr.Limit, "%d disks and network devices: %d are possible together", n, most).With("path", "disks")
	}
	return m.validateVsock()
}

func (m *Machine) validateDisks() error {
	if len(m.Disks) > MaxDisks {
		return bad("disks", "%d disks: %d are possible", len(m.Disks), MaxDisks)
	}
	seen := map[string]bool{}
	for i, d := range m.Disks {
		switch {
		case d.ID == "" || seen[d.ID]:
			return bad("disks.id", "disk %d has no id of its own (%q)", i, d.ID)
		case d.File == "":
			return bad("disks.file", "disk %s names no file", d.ID)
		case d.Format != "raw":
			return qverr.New(qverr.Unsupported, "disk %s: format %q", d.ID, d.Format).With("path", "disks.format")
		case len(d.Serial) > MaxSerial:
			return bad("disks.serial", "disk %s: a serial has at most %d bytes", d.ID, MaxSerial)
		case d.Queues < 0 || d.Queues > MaxQueues:
			return bad("disks.queues", "disk %s: %d queues: 1 to %d are possible", d.ID, d.Queues, MaxQueues)
		case d.Cache != "" && d.Cache != "none" && d.Cache != "writeback" && d.Cache != "writethrough":
			return bad("disks.cache", "disk %s: cache mode %q is unknown", d.ID, d.Cache)
		}
		seen[d.ID] = true
	}
	return nil
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
	add(m.Boot.Kernel, m.Boot.Unpacked, m.Boot.Initrd, m.ConsoleLog, m.SerialLog)
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
	return names
}

func bad(path, format string, args ...any) error {
	return qverr.New(qverr.Config, format, args...).With("path", path)
}
