package vmm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// TestGuestPlaced runs the test kernel in a process as the daemon makes it, on CPUs
// and memory as configured: what the jail and its list of system calls must allow.
func TestGuestPlaced(t *testing.T) {
	dir, work := rig(t), t.TempDir()
	pool := "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	if err := os.WriteFile(pool, []byte("64"), 0); err != nil {
		t.Fatal(err)
	}
	serial := filepath.Join(work, "serial")
	log, err := ring.Create(serial, ring.DefaultSize)
	if err != nil {
		t.Fatal(err)
	}
	spec := vmm.Spec{Binary: filepath.Join(dir, "hv"), Name: "placed", RunDir: work, Log: os.Stderr,
		UID: guestUID, GID: guestUID, Cgroup: filepath.Join(cgroupRoot(t), "placed"), CPUWeight: 50, CPULimit: 1.5,
		Files: map[string]*os.File{"kernel": open(t, filepath.Join(dir, "testkernel"), os.O_RDONLY), "serial": log},
		Machine: config.Machine{UUID: "8d1f0000-0000-4000-8000-000000000002", Type: config.MachineType, CPUs: 4, Memory: 32 << 20,
			CPU:        config.CPU{Model: "x86-64-v3", Features: []string{"-rdrand"}, Topology: config.Topology{Sockets: 1, Cores: 2, Threads: 2}, Pinning: [][]int{{0}, {1}, {0, 1}}},
			MemoryFrom: config.MemoryFrom{HugePage: "2M", Node: new(0)}, SerialLog: "serial",
			Generation: "8d1f0000-0000-4000-8000-000000000003",
			// What needs an operator's hand is left out, and what needs time.
			Boot: config.Boot{Kernel: "kernel", Cmdline: "cpus=4 cores=2 threads=2 level=3 no-acpi no-ioapic no-timers"}}}
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	p, err := vmm.Spawn(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range spec.Files {
		f.Close()
	}
	t.Cleanup(func() {
		_ = p.Kill()
		<-p.Done()
	})
	// It may be over already, and its cgroup gone.
	if err := vmm.SetCPU(spec.Cgroup, 70, 0); err != nil && qverr.CodeOf(err) != qverr.NoEnt {
		t.Error(err)
	}
	report, err := p.Wait(ctx)
	if err != nil || report.Status != vmm.ExitGuestOff {
		t.Errorf("%+v, %v", report, err)
	}
	out, err := ring.Read(serial)
	if err != nil || !strings.HasSuffix(string(out), "done\n") || strings.Contains(string(out), "FAIL") {
		t.Errorf("%v: %s", err, out)
	}
}
