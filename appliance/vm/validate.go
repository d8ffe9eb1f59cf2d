package vm

import (
	"net"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/system"
	"quantavirt/internal/qverr"
)

// maxMemory is far above any machine; it keeps sums of sizes in range.
const maxMemory = 1 << 42

func invalid(path, format string, args ...any) error {
	return qverr.New(qverr.Config, path+": "+format, args...).With("path", path)
}

func unsupported(path, what string) error {
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
	for _, check := range []func(*spec.VMConfig) error{checkCPU, checkMemory, checkBoot, checkStorage, checkNetwork, checkRest} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func checkCPU(c *spec.VMConfig) error {
	cpu := &c.CPU
	if t := cpu.Topology; t != (spec.CPUTopology{}) {
		if product := t.Sockets * t.Cores * t.Threads; product != cpu.Count {
			return qverr.New(qverr.Topology, "cpu.topology: %d sockets × %d cores × %d threads are %d vCPUs, cpu.count is %d",
				t.Sockets, t.Cores, t.Threads, product, cpu.Count).With("path", "cpu.topology")
		}
		if t.Sockets != 1 || t.Threads != 1 {
			return unsupported("cpu.topology", "a topology other than one socket with one thread a core")
		}
	}
	switch {
	case cpu.Count > system.MaxVCPUs:
		return qverr.New(qverr.Limit, "cpu.count: %d vCPUs, a VM of this version has at most %d", cpu.Count, system.MaxVCPUs).With("path", "cpu.count")
	case cpu.Model != "host":
		return unsupported("cpu.model", "a named CPU model")
	case len(cpu.Features) > 0:
		return unsupported("cpu.features", "a choice of CPU features")
	case len(cpu.Pinning) > 0:
		return unsupported("cpu.pinning", "pinning of vCPUs")
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
	case m.Hugepages != spec.MemoryConfigHugepagesOff:
		return unsupported("memory.hugepages", "guest memory in huge pages")
	case m.Balloon:
		return unsupported("memory.balloon", "the balloon device")
	case m.NumaNode != nil:
		return unsupported("memory.numa_node", "placement on a NUMA node")
	}
	return nil
}

func checkBoot(c *spec.VMConfig) error {
	b := &c.Boot
	if b.Firmware != spec.BootConfigFirmwareDirect {
		err := qverr.New(qverr.Unsupported, "boot.firmware: %s does not exist yet", b.Firmware).With("path", "boot.firmware")
		return err.WithHint(`set boot.firmware to "direct" and name boot.kernel`)
	}
	if b.Kernel == "" {
		return invalid("boot.kernel", "direct boot needs a kernel")
	}
	return nil
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
		case n.Queues > 1:
			return unsupported(at(".queues"), "more than one queue pair")
		case n.Bandwidth != 0:
			return unsupported(at(".bandwidth"), "a limit of bandwidth")
		case len(n.Firewall) > 0:
			return unsupported(at(".firewall"), "a firewall per device")
		}
	}
	return nil
}

func checkRest(c *spec.VMConfig) error {
	switch {
	case c.Graphics.Type != "" && c.Graphics.Type != spec.GraphicsConfigTypeNone:
		return unsupported("graphics.type", "a display")
	case len(c.USB) > 0:
		return unsupported("usb", "USB")
	case len(c.PCI) > 0:
		return unsupported("pci", "passthrough of PCI devices")
	case c.PQC.DiskEncryption:
		return unsupported("pqc.disk_encryption", "disk encryption")
	case c.PQC.Quac100 == spec.PQCConfigQuac100Passthrough:
		return unsupported("pqc.quac100", "passthrough of the card")
	case c.Security.SevSnp:
		return qverr.New(qverr.MemEncrypt, "security.sev-snp: this node cannot encrypt guest memory").With("path", "security.sev-snp")
	case c.Security.Tdx:
		return qverr.New(qverr.MemEncrypt, "security.tdx: this node cannot encrypt guest memory").With("path", "security.tdx")
	}
	return nil
}
