package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/image/tools"
)

// smallModules is what the agent's guest loads, beyond what the kernel has
// built in; virtio_mmio is for QEMU's microvm.
var smallModules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "vmw_vsock_virtio_transport", "button", "evdev"}

// Small makes the agent's guest in dir: Debian's cloud kernel and an initrd
// that holds the agent and a few modules.
func Small(ctx context.Context, root tools.Root, source, dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Files{}, err
	}
	agent := filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", agent, "./qemu-tests/guest/agent")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return Files{}, fmt.Errorf("guest: build the agent: %w: %s", err, out)
	}
	kernel, err := root.Kernel("cloud")
	if err != nil {
		return Files{}, err
	}
	f := Files{Kernel: kernel.Image, Initrd: filepath.Join(dir, "initrd.cpio")}
	records, err := smallRecords(agent, kernel)
	if err != nil {
		return Files{}, err
	}
	return f, writeArchive(f.Initrd, records)
}

func smallRecords(agent string, kernel tools.Kernel) ([]cpio.Record, error) {
	program, err := os.ReadFile(agent)
	if err != nil {
		return nil, err
	}
	records := []cpio.Record{
		cpio.StaticFile("init", string(program), 0o755),
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.Directory("modules", 0o755),
	}
	modules, err := kernel.Resolve(smallModules)
	if err != nil {
		return nil, err
	}
	var order []string
	for _, m := range modules {
		data, err := m.Read()
		if err != nil {
			return nil, err
		}
		order = append(order, m.Name+".ko")
		records = append(records, cpio.StaticFile("modules/"+m.Name+".ko", string(data), 0o644))
	}
	return append(records, cpio.StaticFile("modules/order", strings.Join(order, "\n")+"\n", 0o644)), nil
}
