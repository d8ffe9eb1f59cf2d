package vm

import (
	"net"
	"slices"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/system"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// maxMemory is far above any machine; it keeps sums of sizes in range.
const maxMemory = 1 << 42

func invalid(path, format string, args ...any) error {
	return qverr.New(qverr.Config, path+": "+format, args...).With("path", path)
}

func unsupported(path, what string) *qverr.Error {
	return qverr.New(qverr.Unsupported, "%s: %s does not exist yet", path, what).With("path", path)
}

// validate holds a normalised configuration against what the schema cannot say
// and against what this version can do.
func validate(c *spec.VMConfig) error {
	if c.SchemaVersion != SchemaVersion {
		return qverr.New(qverr.Version, "VM configuration has schema version %.16q, this node knows %s", c.SchemaVersion, SchemaVersion).
			With("path", "schema_version")
	}
	if c.Name == "." || c.Name == ".." {
		return invalid("name", "%q is no name", c.Name)
	}
	for _, check := range []func(*spec.VMConfig) error{checkPCI, checkMachine, checkCPU, checkMemory, checkPlace, checkBoot, checkStorage, checkNetwork, checkRest} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func checkMemory(c *spec.VMConfig) error {
	m := &c.Memory
	switch {
	case m.Size < system.MinMemory:
		return invalid("memory.size", "%d bytes, the least is 16M", int64(m.Size))
	case m.Size > maxMemory:
		return invalid("memory.size", "%s, the most is 4T", m.Size)
	case m.Size%4096 != 0:
		return invalid("memory.size", "%d bytes, not whole pages of 4096", int64(m.Size))
	case m.MaxSize != 0 && m.MaxSize < m.Size:
		return invalid("memory.max_size", "%s is less than memory.size %s", m.MaxSize, m.Size)
	case m.MaxSize > m.Size:
		return unsupported("memory.max_size", "hot-add of memory")
	}
	return checkBalloon(c)
}

func checkStorage(c *spec.VMConfig) error {
	seen := make(map[string]int)
	for i, d := range c.Storage {
		at := func(field string) string { return indexed("storage", i, field) }
		switch {
		case d.Type != spec.StorageConfigTypeVirtioBlk:
			return unsupported(at(".type"), "the controller "+string(d.Type))
		case (d.Disk == "") == (d.Path == ""):
			return invalid(at(""), "needs one of disk and path")
		case d.Disk == "." || d.Disk == "..":
			return invalid(at(".disk"), "%q is no name", d.Disk)
		}
		if err := diskLimits(&d).Validate(); err != nil {
			path := at(map[any]string{"operations": ".iops", "bytes": ".bandwidth"}[qverr.From(err).Details["path"]])
			return qverr.New(qverr.Config, "%s: %w", path, err).With("path", path)
		}
		key := d.Disk + "\x00" + d.Path
		if j, twice := seen[key]; twice && !(d.Readonly && c.Storage[j].Readonly) {
			return invalid(at(""), "is the same disk as storage[%d], and not both are readonly", j)
		}
		seen[key] = i
	}
	return nil
}

func checkNetwork(c *spec.VMConfig) error {
	seen := make(map[string]bool)
	for i, n := range c.Network {
		at := func(field string) string { return indexed("network", i, field) }
		if n.MAC != "" {
			mac, err := net.ParseMAC(n.MAC)
			if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
				return qverr.New(qverr.NetMAC, "%s: %.32q is no unicast MAC address", at(".mac"), n.MAC).With("path", at(".mac"))
			}
			if seen[n.MAC] {
				return qverr.New(qverr.NetMAC, "%s: %s stands twice", at(".mac"), n.MAC).With("path", at(".mac"))
			}
			seen[n.MAC] = true
		}
		switch {
		case len(n.Firewall) > 0:
			return unsupported(at(".firewall"), "a firewall per device")
		}
	}
	return nil
}

func checkRest(c *spec.VMConfig) error {
	for i, name := range c.ConsolePorts {
		if name == vmm.ConsoleSerial || name == vmm.ConsoleVirtio || name == "." || name == ".." || slices.Contains(c.ConsolePorts[:i], name) {
			return invalid(indexed("console_ports", i, ""), "%q is a console, or stands twice", name)
		}
	}
	switch {
	case c.Graphics.Type != "" && c.Graphics.Type != spec.GraphicsConfigTypeNone:
		return unsupported("graphics.type", "a display")
	case len(c.USB) > 0:
		return unsupported("usb", "USB")
	case c.PQC.DiskEncryption:
		return unsupported("pqc.disk_encryption", "disk encryption")
	case c.Security.SevSnp:
		return qverr.New(qverr.MemEncrypt, "security.sev-snp: this node cannot encrypt guest memory").With("path", "security.sev-snp")
	case c.Security.Tdx:
		return qverr.New(qverr.MemEncrypt, "security.tdx: this node cannot encrypt guest memory").With("path", "security.tdx")
	}
	return nil
}
