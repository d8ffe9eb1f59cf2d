package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/hv/machine/testkernel"
	"quantavirt/image/tools"
)

// nestedModules is what the guest of hv/vmm's own tests loads.
var nestedModules = []string{"virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon", "vmw_vsock_virtio_transport", "button", "evdev"}

// program is a package to be compiled for the appliance.
type program struct{ name, command, pkg string }

// cardTest is the tests of the card's driver.
var cardTest = program{"quac100.test", "test -c", "./quac100"}

// CardTest writes into dir an archive to be unpacked before the image's own, with the
// compiled tests of package quac100 below /nested, and returns its path.
func CardTest(ctx context.Context, source, dir string) (string, error) {
	records, err := compiled(ctx, source, dir, cardTest)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "card.cpio")
	return path, writeArchive(path, records)
}

// compiled builds programs into dir and makes records of them below /nested.
func compiled(ctx context.Context, source, dir string, programs ...program) ([]cpio.Record, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	records := []cpio.Record{cpio.Directory("nested", 0o755), cpio.Directory("nested/bin", 0o755)}
	for _, p := range programs {
		out := filepath.Join(dir, p.name)
		args := append(strings.Fields(p.command), "-trimpath", "-ldflags", "-s -w", "-o", out, p.pkg)
		build := exec.CommandContext(ctx, "go", args...)
		build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("guest: build %s: %w: %s", p.pkg, err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			return nil, err
		}
		records = append(records, cpio.StaticFile("nested/"+p.name, string(data), 0o755))
	}
	return records, nil
}

// Nested writes into dir what the tests of the VMM need inside the appliance, as an
// archive to be unpacked before the image's own: below /nested the compiled tests
// of packages hv/machine, hv/vmm, hv/vmm/jail and hv/block, and of CardTest, hv, a kernel and the initrd of
// their guest, and the flat test kernel. It returns the archive's path.
func Nested(ctx context.Context, root tools.Root, source, dir string) (string, error) {
	kernel, err := root.Kernel("cloud")
	if err != nil {
		return "", err
	}
	records, err := compiled(ctx, source, dir,
		program{"machine.test", "test -c", "./hv/machine"}, program{"vmm.test", "test -c", "./hv/vmm"},
		program{"jail.test", "test -c", "./hv/vmm/jail"}, program{"block.test", "test -c", "./hv/block"}, cardTest,
		program{"hv", "build", "./hv/cmd/hv"}, program{"guesttool", "build", "./hv/vmm/internal/guesttool"})
	if err != nil {
		return "", err
	}
	busybox, err := os.ReadFile(root.Path("usr", "bin", "busybox"))
	if err != nil {
		return "", err
	}
	image, err := os.ReadFile(kernel.Image)
	if err != nil {
		return "", err
	}
	initrd, err := nestedInitrd(ctx, root, kernel, source, dir)
	if err != nil {
		return "", err
	}
	fio, err := Fio(ctx, root, dir)
	if err != nil {
		return "", err
	}
	flat, err := testKernel(ctx, dir)
	if err != nil {
		return "", err
	}
	records = append(records, flat,
		// The tests call ip by name, before the image's own is there.
		cpio.StaticFile("nested/bin/busybox", string(busybox), 0o755), cpio.Symlink("nested/bin/ip", "busybox"),
		cpio.StaticFile("nested/vmlinuz", string(image), 0o644), cpio.StaticFile("nested/guest.cpio", initrd, 0o644))
	for name, file := range map[string]string{
		"bios-256k.bin": root.Path("usr", "share", "seabios", "bios-256k.bin"), "pxe-virtio.rom": root.Path("usr", "share", "qemu", "pxe-virtio.rom"),
		"fio.img": fio,
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		records = append(records, cpio.StaticFile("nested/"+name, string(data), 0o644))
	}
	path := filepath.Join(dir, "nested.cpio")
	return path, writeArchive(path, records)
}

// testKernel is the flat kernel that the tests of hv/machine run.
func testKernel(ctx context.Context, dir string) (cpio.Record, error) {
	path, err := testkernel.Build(ctx, dir)
	if err != nil {
		return cpio.Record{}, err
	}
	data, err := os.ReadFile(path)
	return cpio.StaticFile("nested/testkernel", string(data), 0o644), err
}

// nestedInitrd is busybox with all its names, the modules, guesttool and the init
// of hv/vmm/testdata.
func nestedInitrd(ctx context.Context, root tools.Root, kernel tools.Kernel, source, dir string) (string, error) {
	busybox := root.Path("usr", "bin", "busybox")
	list, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return "", fmt.Errorf("guest: names of busybox: %w", err)
	}
	var records []cpio.Record
	for _, d := range []string{"bin", "dev", "mod", "proc", "sys", "tmp"} {
		records = append(records, cpio.Directory(d, 0o755))
	}
	records = append(records, cpio.CharDev("dev/console", 0o600, 5, 1))
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			records = append(records, cpio.Symlink("bin/"+name, "busybox"))
		}
	}
	for name, path := range map[string]string{"bin/busybox": busybox, "bin/guesttool": filepath.Join(dir, "guesttool"),
		"init": filepath.Join(source, "hv", "vmm", "testdata", "guest", "init")} {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		records = append(records, cpio.StaticFile(name, string(data), 0o755))
	}
	modules, err := kernel.Resolve(nestedModules)
	if err != nil {
		return "", err
	}
	var order []string
	for _, m := range modules {
		data, err := m.Read()
		if err != nil {
			return "", err
		}
		order = append(order, m.Name+".ko")
		records = append(records, cpio.StaticFile("mod/"+m.Name+".ko", string(data), 0o644))
	}
	records = append(records, cpio.StaticFile("mod/order", strings.Join(order, "\n")+"\n", 0o644))
	path := filepath.Join(dir, "guest.cpio")
	if err := writeArchive(path, records); err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	return string(data), err
}

func writeArchive(path string, records []cpio.Record) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := cpio.Newc.Writer(out)
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(w)
}

// Whose writes into dir an archive with /nested/whose, which tells of pages whose they
// are, and returns its path.
func Whose(ctx context.Context, source, dir string) (string, error) {
	records, err := compiled(ctx, source, dir, program{"whose", "build", "./qemu-tests/guest/whose"})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "whose.cpio")
	return path, writeArchive(path, records)
}
