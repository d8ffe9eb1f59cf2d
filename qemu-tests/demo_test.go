package qemutests

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/qemu-tests/bench"
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
	for name, v := range map[string]float64{
		"API ready": r.Boot.Ready, "bare init": r.Boot.Bare, "idle memory": r.IdleMiB,
		"hv first instruction": r.Monitor.HV.FirstInstruction, "hv guest init": r.Monitor.HV.GuestInit, "hv memory": r.Monitor.HV.BeyondRAMMiB,
		"microvm first instruction": r.Monitor.MicroVM.FirstInstruction, "microvm guest init": r.Monitor.MicroVM.GuestInit, "microvm memory": r.Monitor.MicroVM.BeyondRAMMiB,
	} {
		if v <= 0 {
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
