package image

import (
	"fmt"
	"os"
	"path"

	"github.com/u-root/mkuimage/cpio"

	"quantavirt/image/tools"
)

// guestDir is where the image keeps the firmware of virtual machines (option
// --firmware of the daemon).
const guestDir = "lib/quantavirt/guest"

// guestRecords returns SeaBIOS for virtual machines, and iPXE's option ROM of
// virtio-net by which they boot from a network.
func guestRecords(root tools.Root) (records []cpio.Record, groups map[string]string, err error) {
	records = []cpio.Record{cpio.Directory(guestDir, 0o755)}
	groups = map[string]string{}
	for _, file := range []string{root.Path("usr", "share", "seabios", "bios-256k.bin"), root.Path("usr", "share", "qemu", "pxe-virtio.rom")} {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("image: firmware of guests: %w", err)
		}
		name := path.Join(guestDir, path.Base(file))
		records = append(records, cpio.StaticFile(name, string(data), 0o644))
		groups[name] = "firmware of guests"
	}
	return records, groups, nil
}
