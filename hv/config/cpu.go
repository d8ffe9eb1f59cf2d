package config

import (
	"quantavirt/hv/cpumodel"
	"quantavirt/internal/qverr"
)

// Bounds of a topology.
const (
	MaxSockets = 8
	MaxCores   = 128 // of a socket
	MaxThreads = 2   // of a core
)

// CPU is what the vCPUs of a machine are like. Its zero value shows the guest all
// that the host's CPU can do, as one socket of cores with one thread each.
type CPU struct {
	Model    string   `json:"model,omitempty"`    // a name of cpumodel.Names, "" means host
	Features []string `json:"features,omitempty"` // +flag or -flag, by Linux's names
	Topology Topology `json:"topology,omitzero"`
	// Pinning lists for each vCPU the host's CPUs that it may run on; a vCPU without
	// an entry runs on any.
	Pinning [][]int `json:"pinning,omitempty"`
}

// Topology groups the vCPUs: the first threads make the first core, the first cores
// the first socket.
type Topology struct {
	Sockets int `json:"sockets"`
	Cores   int `json:"cores"`   // of each socket
	Threads int `json:"threads"` // of each core
}

// Resolve is the topology of count vCPUs: t, or one socket when t is zero.
func (t Topology) Resolve(count int) Topology {
	if t == (Topology{}) {
		return Topology{Sockets: 1, Cores: count, Threads: 1}
	}
	return t
}

// Check tells whether t groups count vCPUs. Its errors carry QV_ERR_TOPOLOGY.
func (t Topology) Check(count int) error {
	if t == (Topology{}) {
		return nil
	}
	if t.Sockets < 1 || t.Sockets > MaxSockets || t.Cores < 1 || t.Cores > MaxCores || t.Threads < 1 || t.Threads > MaxThreads {
		return qverr.New(qverr.Topology, "%d sockets × %d cores × %d threads: 1 to %d × 1 to %d × 1 to %d are possible",
			t.Sockets, t.Cores, t.Threads, MaxSockets, MaxCores, MaxThreads)
	}
	if n := t.Sockets * t.Cores * t.Threads; n != count {
		return qverr.New(qverr.Topology, "%d sockets × %d cores × %d threads are %d vCPUs, not %d", t.Sockets, t.Cores, t.Threads, n, count)
	}
	return nil
}

// maxHostCPU bounds the number of a host CPU: NR_CPUS of Debian's kernel.
const maxHostCPU = 8192

func (m *Machine) validateCPU() error {
	if m.CPUs < 1 || m.CPUs > MaxCPUs {
		return bad("cpus", "%d vCPUs: 1 to %d are possible", m.CPUs, MaxCPUs)
	}
	if err := m.CPU.Topology.Check(m.CPUs); err != nil {
		return qverr.From(err).With("path", "cpu.topology")
	}
	if err := cpumodel.Check(m.CPU.Model, m.CPU.Features); err != nil {
		return err
	}
	if len(m.CPU.Pinning) > m.CPUs {
		return bad("cpu.pinning", "%d entries for %d vCPUs", len(m.CPU.Pinning), m.CPUs)
	}
	for i, set := range m.CPU.Pinning {
		for _, cpu := range set {
			if cpu < 0 || cpu >= maxHostCPU {
				return bad("cpu.pinning", "vCPU %d: the host has no CPU %d", i, cpu)
			}
		}
	}
	return nil
}
