package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/hv/machine/testkernel"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// Monitors compares our VMM with QEMU's microvm.
type Monitors struct {
	HV      Monitor `json:"hv"`
	MicroVM Monitor `json:"microvm"`
	// Timers are how late a guest's timer of 1 ms is, under load.
	TimerHV      Latency `json:"timer_hv"`
	TimerMicroVM Latency `json:"timer_microvm"`
}

// Monitor is the medians of one of them.
type Monitor struct {
	FirstInstruction float64 `json:"first_instruction_ms"`
	GuestInit        float64 `json:"guest_init_ms"`
	BeyondRAMMiB     float64 `json:"beyond_guest_ram_mib"`
}

// monitors boots one appliance that has QEMU beside the image, and lets the
// runner take turns in its rescue shell.
func (r *run) monitors(ctx context.Context) error {
	archive, err := r.monitorArchive(ctx)
	if err != nil {
		return err
	}
	n, err := lab.Up(ctx, lab.Options{Name: "bench", Memory: 3072, Archive: archive, Cmdline: "quantavirt.rescue"})
	if err != nil {
		return err
	}
	defer func() { _ = n.Down() }()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.opts.Runs)*4*time.Minute)
	defer cancel()
	out, err := n.Shell(ctx, fmt.Sprintf("/bench/runner %d", r.opts.Runs))
	if err != nil {
		return err
	}
	hv, microvm := parse(out, "hv"), parse(out, "microvm")
	r.rep.Monitor = Monitors{HV: hv, MicroVM: microvm, TimerHV: latencyOf(out, "hv"), TimerMicroVM: latencyOf(out, "microvm")}
	if hv.GuestInit == 0 || microvm.GuestInit == 0 {
		return fmt.Errorf("the monitors could not be measured: %s", out)
	}
	show := func(name string, v, peer float64, unit, aim string) {
		fmt.Fprintf(r.opts.Out, "vmm: %-28s %8.1f %s, microvm %8.1f %s: ratio %.2f (aim: %s)\n", name, v, unit, peer, unit, v/peer, aim)
	}
	show("start to first instruction", hv.FirstInstruction, microvm.FirstInstruction, "ms", "0.3")
	show("start to guest's init", hv.GuestInit, microvm.GuestInit, "ms", "0.6")
	show("memory beyond guest RAM", hv.BeyondRAMMiB, microvm.BeyondRAMMiB, "MiB", "8 MiB")
	return r.showTimers(out)
}

// parse takes the medians of one monitor out of the runner's lines.
func parse(out, name string) Monitor {
	var first, init, beyond []float64
	for line := range strings.Lines(out) {
		var m struct {
			Monitor string  `json:"monitor"`
			First   float64 `json:"first_instruction_ms"`
			Init    float64 `json:"guest_init_ms"`
			Beyond  float64 `json:"beyond_guest_ram_kib"`
		}
		if json.Unmarshal([]byte(line), &m) == nil && m.Monitor == name {
			first, init, beyond = append(first, m.First), append(init, m.Init), append(beyond, m.Beyond/1024)
		}
	}
	return Monitor{median(first), median(init), median(beyond)}
}

// monitorArchive holds QEMU with its libraries, the runner and the guest.
func (r *run) monitorArchive(ctx context.Context) (string, error) {
	dir := filepath.Join(r.root, "build", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	runner := filepath.Join(dir, "runner")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", runner, "./qemu-tests/bench/runner")
	build.Dir, build.Env = r.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the runner: %w: %s", err, out)
	}
	files, err := guest.Small(ctx, r.tool, r.root, filepath.Join(dir, "guest"))
	if err != nil {
		return "", err
	}
	kernel, err := testkernel.Build(ctx, dir)
	if err != nil {
		return "", err
	}
	add := map[string]string{
		"bench/runner": runner, "bench/vmlinuz": files.Kernel, "bench/initrd": files.Initrd,
		"bench/testkernel": kernel, "bench/qemu-system-x86_64": r.tool.Path("usr", "bin", "qemu-system-x86_64"),
	}
	for _, name := range []string{"usr/share/seabios/bios-microvm.bin", "usr/share/qemu/qboot.rom", "usr/share/qemu/linuxboot_dma.bin", "usr/share/qemu/pvh.bin"} {
		add["bench/share/"+filepath.Base(name)] = r.tool.Path(name)
	}
	libs, err := r.libraries()
	if err != nil {
		return "", err
	}
	for _, lib := range libs {
		add["bench/lib/"+filepath.Base(lib)] = lib
	}
	records := []cpio.Record{cpio.Directory("bench", 0o755), cpio.Directory("bench/lib", 0o755), cpio.Directory("bench/share", 0o755)}
	for name, path := range add {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		records = append(records, cpio.StaticFile(name, string(data), 0o755))
	}
	return r.archive("monitors.cpio", records)
}

// libraries asks the root's dynamic linker what QEMU loads.
func (r *run) libraries() ([]string, error) {
	path, args := r.tool.QEMU()
	out, err := exec.Command(path, append([]string{"--list"}, args[:3]...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("libraries of QEMU: %w", err)
	}
	libs := []string{path}
	for line := range bytes.Lines(out) {
		if _, rest, ok := strings.Cut(string(line), "=> "); ok {
			lib, _, _ := strings.Cut(rest, " (")
			libs = append(libs, lib)
		}
	}
	return libs, nil
}
