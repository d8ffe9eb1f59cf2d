package qemutests

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/qemu-tests/bench"
	"quantavirt/qemu-tests/bench/figure"
	"quantavirt/qemu-tests/demo"
)

// What make demo shows, to its end.
func TestDemonstration(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := demo.Run(ctx, demo.Options{Out: t.Output(), Check: true}); err != nil {
		t.Fatal(err)
	}
}

// Every measurement gives a figure; what the figures are is for make bench to
// say, but for the size, which no load of the machine changes.
func TestBench(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if err := bench.Run(ctx, bench.Options{Out: t.Output(), Runs: rounds(1, 3), Short: rounds(0, 1) == 0}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(shared.root, "build", "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{"API ready": r.Boot.Ready, "bare init": r.Boot.Bare, "idle memory": r.IdleMiB} {
		if v <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	values := map[string]map[string]float64{}
	for _, c := range r.Monitor.Figures {
		values[c.Name] = c.Values
	}
	for _, name := range []string{figure.First, figure.PVH, figure.Memory} {
		if v := values[name]; v[figure.HV] <= 0 || v[figure.MicroVM] <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	for _, name := range []string{"random 4 KiB writes, depth 32, 1 vCPU", "TCP to the guest, 1 vCPU", "VSOCK requests, 1 vCPU"} {
		if v := values[name]; v[figure.HV] <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	var size int64
	for _, name := range []string{"vmlinuz", "initramfs.zst"} {
		info, err := os.Stat(filepath.Join(shared.root, "build", "image", "virtual", name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size >= 32<<20 {
		t.Errorf("kernel and initramfs have %d bytes together", size)
	}
}
