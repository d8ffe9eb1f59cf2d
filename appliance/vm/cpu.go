package vm

import (
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/system"
	"quantavirt/hv/config"
	"quantavirt/hv/cpumodel"
	"quantavirt/internal/qverr"
)

func checkMachine(c *spec.VMConfig) error {
	if err := config.CheckMachineType(c.Machine); err != nil {
		return qverr.From(err).With("path", "machine")
	}
	return nil
}

func checkCPU(c *spec.VMConfig) error {
	cpu := &c.CPU
	if cpu.Count > system.MaxVCPUs {
		return qverr.New(qverr.Limit, "cpu.count: %d vCPUs, a VM of this version has at most %d", cpu.Count, system.MaxVCPUs).With("path", "cpu.count")
	}
	if err := topologyOf(c).Check(cpu.Count); err != nil {
		return qverr.New(qverr.Topology, "cpu.topology: %w", err).With("path", "cpu.topology")
	}
	if err := cpumodel.Check(cpu.Model, cpu.Features); err != nil {
		return err
	}
	if len(cpu.Pinning) > cpu.Count {
		return invalid("cpu.pinning", "%d entries for %d vCPUs", len(cpu.Pinning), cpu.Count)
	}
	return nil
}

func topologyOf(c *spec.VMConfig) config.Topology {
	t := c.CPU.Topology
	return config.Topology{Sockets: t.Sockets, Cores: t.Cores, Threads: t.Threads}
}

// cpuOf is what the VM process makes the vCPUs by.
func cpuOf(c *spec.VMConfig) config.CPU {
	return config.CPU{Model: c.CPU.Model, Features: c.CPU.Features, Topology: topologyOf(c), Pinning: c.CPU.Pinning}
}

func checkPlace(c *spec.VMConfig) error {
	if c.Memory.Balloon && c.Memory.Hugepages != spec.MemoryConfigHugepagesOff {
		return invalid("memory.balloon", "guest memory in huge pages cannot be given back")
	}
	if page := memoryFrom(c).PageBytes(); page != 0 && int64(c.Memory.Size)%page != 0 {
		return invalid("memory.size", "%s is not whole huge pages of %s", c.Memory.Size, c.Memory.Hugepages)
	}
	return nil
}

func memoryFrom(c *spec.VMConfig) config.MemoryFrom {
	from := config.MemoryFrom{Node: c.Memory.NumaNode}
	if c.Memory.Hugepages != spec.MemoryConfigHugepagesOff {
		from.HugePage = string(c.Memory.Hugepages)
	}
	return from
}
