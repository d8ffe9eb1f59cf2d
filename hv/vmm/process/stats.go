package process

import (
	"maps"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/kvm"
	"quantavirt/hv/machine"
	"quantavirt/hv/vmm"
	ver "quantavirt/internal/version"
)

func version() string { return ver.Version }

// stats reads all counters.
func (vm *VM) stats() vmm.Stats {
	now := time.Now()
	s := vmm.Stats{Time: now.UTC(), CPU: cpuStats(), Process: procStats(),
		VCPUs: []vmm.VCPUStats{}, Devices: []vmm.Device{}, Consoles: []vmm.ConsoleStats{}, Disks: []vmm.DiskStats{}, NICs: []vmm.NICStats{}}
	ready := vm.hasMachine()
	vm.mu.Lock()
	s.State = vm.state
	if !vm.started.IsZero() {
		s.UptimeSeconds = now.Sub(vm.started).Seconds()
	}
	vm.mu.Unlock()
	if !ready {
		return s
	}
	m := vm.machine.Stats()
	s.GuestTouched = m.Touched
	if at := m.FirstEntry.UTC(); !m.FirstEntry.IsZero() {
		s.FirstEntry = &at
	}
	for i, v := range m.VCPUs {
		s.VCPUs = append(s.VCPUs, vcpuStats(i, v))
	}
	for _, name := range slices.Sorted(maps.Keys(vm.consoles)) {
		r := vm.consoles[name].ring
		s.Consoles = append(s.Consoles, vmm.ConsoleStats{ID: name, Bytes: r.Written(), Dropped: r.Dropped()})
	}
	s.Devices = vm.info().Devices
	s.Balloon = vm.balloonStats()
	for _, d := range vm.disks {
		s.Disks = append(s.Disks, d.stats())
	}
	for _, n := range vm.nics {
		c := n.dev.Stats()
		s.NICs = append(s.NICs, vmm.NICStats{ID: n.id, Offloaded: n.dev.Vhost(), Queues: n.dev.Pairs(), Link: n.dev.LinkUp(), Limits: n.dev.Limits(),
			RxPackets: c.RxPackets, RxBytes: c.RxBytes, RxDropped: c.RxDropped,
			TxPackets: c.TxPackets, TxBytes: c.TxBytes, TxErrors: c.TxErrors})
	}
	return s
}

func vcpuStats(id int, v machine.VCPUStats) vmm.VCPUStats {
	s := vmm.VCPUStats{ID: id, Exits: v.Total(), IO: v.Exits[kvm.ExitIO], MMIO: v.Exits[kvm.ExitMMIO],
		CPUUS: v.CPUTime.Microseconds(), Reasons: map[string]uint64{}}
	for reason, n := range v.Exits {
		if n > 0 {
			s.Reasons[kvm.ReasonName(uint32(reason))] += n
		}
	}
	return s
}

func cpuStats() vmm.CPUStats {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return vmm.CPUStats{}
	}
	return vmm.CPUStats{UserUS: u.Utime.Nano() / 1000, SystemUS: u.Stime.Nano() / 1000}
}

func procStats() vmm.ProcStats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return vmm.ProcStats{HeapBytes: m.HeapAlloc, RuntimeBytes: m.Sys - m.HeapReleased,
		Goroutines: runtime.NumGoroutine(), GCs: m.NumGC}
}
