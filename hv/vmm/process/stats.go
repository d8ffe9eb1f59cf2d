package process

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/vmm"
	ver "quantavirt/internal/version"
)

func version() string { return ver.Version }

// stats reads all counters.
func (vm *VM) stats() vmm.Stats {
	now := time.Now()
	s := vmm.Stats{Time: now.UTC(), CPU: cpuStats(), Process: procStats(),
		VCPUs: []vmm.VCPUStats{}, Disks: []vmm.DiskStats{}, NICs: []vmm.NICStats{}}
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
		s.VCPUs = append(s.VCPUs, vmm.VCPUStats{ID: i, Exits: v.Exits, IO: v.IO, MMIO: v.MMIO, CPUUS: v.CPUTime.Microseconds()})
	}
	s.Balloon = vm.balloonStats()
	for _, d := range vm.disks {
		c := &d.dev.Counters
		s.Disks = append(s.Disks, vmm.DiskStats{ID: d.id, Reads: c.Reads.Load(), ReadBytes: c.ReadBytes.Load(),
			Writes: c.Writes.Load(), WriteBytes: c.WriteBytes.Load(), Flushes: c.Flushes.Load(),
			Discards: c.Discards.Load(), Errors: c.Errors.Load()})
	}
	for _, n := range vm.nics {
		c := n.dev.Stats()
		s.NICs = append(s.NICs, vmm.NICStats{ID: n.id, Offloaded: n.dev.Vhost(), Queues: n.dev.Pairs(), Link: n.dev.LinkUp(), Limits: n.dev.Limits(),
			RxPackets: c.RxPackets, RxBytes: c.RxBytes, RxDropped: c.RxDropped,
			TxPackets: c.TxPackets, TxBytes: c.TxBytes, TxErrors: c.TxErrors})
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
