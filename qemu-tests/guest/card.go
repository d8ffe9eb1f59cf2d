package guest

import (
	"context"
	"os"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"

	"quantavirt/image/tools"
)

// cardInit is PID 1 of the guest that has a card to itself: it runs the driver's tests on
// it and powers off. What it says goes to the kernel's console.
const cardInit = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/vendor)" = 0x1db7 ] && export QUANTAVIRT_GUEST_CARD=${d##*/}
done
for word in $(cat /proc/cmdline); do
	case $word in operations=*) export QUANTAVIRT_CARD_OPERATIONS=${word#*=} ;; esac
done
echo "GUEST: card at $QUANTAVIRT_GUEST_CARD"
/quac100.test -test.v -test.run TestLoadGuest
echo "GUEST: stray interrupts: $(dmesg | grep -c 'No irq handler for')"
echo "GUEST: done"
poweroff -f
`

// Card makes the guest of the passthrough test in dir: Debian's cloud kernel and an initrd
// with busybox and the compiled tests of package quac100.
func Card(ctx context.Context, root tools.Root, source, dir string) (Files, error) {
	kernel, err := root.Kernel("cloud")
	if err != nil {
		return Files{}, err
	}
	built, err := compiled(ctx, source, dir, cardTest)
	if err != nil {
		return Files{}, err
	}
	busybox, err := os.ReadFile(root.Path("usr", "bin", "busybox"))
	if err != nil {
		return Files{}, err
	}
	program := built[len(built)-1]
	program.Name = "quac100.test"
	records := []cpio.Record{
		cpio.Directory("bin", 0o755), cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755), cpio.Directory("tmp", 0o1777),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("bin/busybox", string(busybox), 0o755), cpio.StaticFile("init", cardInit, 0o755), program,
	}
	for _, name := range []string{"sh", "mount", "cat", "dmesg", "grep", "poweroff", "sleep", "echo"} {
		records = append(records, cpio.Symlink("bin/"+name, "busybox"))
	}
	f := Files{Kernel: kernel.Image, Initrd: filepath.Join(dir, "card-guest.cpio")}
	return f, writeArchive(f.Initrd, records)
}
