package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/hv/machine"
	"quantavirt/hv/machine/testkernel"
	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// Monitors compares our VMM with QEMU's microvm and q35.
type Monitors struct {
	Figures []Comparison `json:"figures"`
	// Timers are how late a guest's timer of 1 ms is, under load.
	TimerHV      Latency `json:"timer_hv"`
	TimerMicroVM Latency `json:"timer_microvm"`
}

// monitors boots one appliance that has QEMU beside the image, and lets the
// runner take turns in its rescue shell.
func (r *run) monitors(ctx context.Context) error {
	archive, err := r.monitorArchive(ctx)
	if err != nil {
		return err
	}
	o := lab.Options{Name: "bench", Memory: 3072, Archive: archive, Cmdline: "quantavirt.rescue"}
	command := fmt.Sprintf("/bench/runner %d", r.opts.Runs)
	if r.opts.Short {
		command += " short"
	} else if o.Extra, err = r.bootDisk(ctx); err != nil {
		return err
	}
	n, err := lab.Up(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = n.Down() }()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	out, err := n.Shell(ctx, command)
	if err != nil {
		return err
	}
	r.rep.Monitor = Monitors{Figures: compare(out), TimerHV: latencyOf(out, "hv"), TimerMicroVM: latencyOf(out, "microvm")}
	for _, c := range r.rep.Monitor.Figures {
		fmt.Fprintf(r.opts.Out, "vmm: %s\n", c)
	}
	if strings.Contains(out, "bench-error") {
		return fmt.Errorf("the monitors could not be measured: %s", out)
	}
	return r.showTimers(out)
}

// bootDisk makes the Debian that SeaBIOS and GRUB start, and returns the node's
// arguments with it.
func (r *run) bootDisk(ctx context.Context) ([]string, error) {
	cache, err := tools.CacheDir()
	if err != nil {
		return nil, err
	}
	disks, err := guest.NewBootDisks(ctx, r.tool, cache, filepath.Join(r.root, "build", "guest", "bios"), true, r.opts.Out)
	return disks.QEMUArgs(), err
}

// unpackKernel stores what a bzImage has in it.
func unpackKernel(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(machine.Unpack(in, out), out.Close())
}

// program builds one for the appliance and returns its path.
func (r *run) program(ctx context.Context, dir, pkg string) (string, error) {
	path := filepath.Join(dir, filepath.Base(pkg))
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
	build.Dir, build.Env = r.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return path, nil
}

// monitorArchive holds QEMU with its libraries, hv, the runner and the guests.
func (r *run) monitorArchive(ctx context.Context) (string, error) {
	dir := filepath.Join(r.root, "build", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	runner, err := r.program(ctx, dir, "./qemu-tests/bench/runner")
	if err != nil {
		return "", err
	}
	hv, err := r.program(ctx, dir, "./hv/cmd/hv")
	if err != nil {
		return "", err
	}
	files, err := guest.Small(ctx, r.tool, r.root, filepath.Join(dir, "guest"))
	if err != nil {
		return "", err
	}
	kernel, err := testkernel.Build(ctx, dir)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(dir, "vmlinux")
	if err := unpackKernel(files.Kernel, unpacked); err != nil {
		return "", err
	}
	add := map[string]string{
		"bench/runner": runner, "bench/hv": hv, "bench/vmlinuz": files.Kernel, "bench/vmlinux": unpacked, "bench/initrd": files.Initrd,
		"bench/testkernel": kernel, "bench/qemu-system-x86_64": r.tool.Path("usr", "bin", "qemu-system-x86_64"),
	}
	for _, name := range []string{"usr/share/seabios/bios-microvm.bin", "usr/share/seabios/bios-256k.bin",
		"usr/share/qemu/qboot.rom", "usr/share/qemu/kvmvapic.bin", "usr/share/qemu/linuxboot_dma.bin", "usr/share/qemu/pvh.bin"} {
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
