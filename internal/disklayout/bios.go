package disklayout

import (
	"encoding/binary"
	"io"

	"quantavirt/internal/qverr"
)

// BIOS is GRUB for a disk, as its own tools make it: boot.img for the first
// sector, and the core image for the BIOS boot partition (grub-mkimage -O
// i386-pc).
type BIOS struct {
	Boot []byte
	Core []byte
}

// Offsets of GRUB 2 (include/grub/i386/pc/boot.h, constant unless said).
const (
	bootCode      = 440  // bytes of boot.img before signature and partitions
	kernelSector  = 0x5c // 64 bits: where the core image begins
	driveCheck    = 0x66 // a jump over the check of the drive's number
	blocklist     = 0x1f4
	sector        = 512
	loadSegment   = 0x820 // of the rest of the core image
	maxCoreLength = 1 << 19
)

// check refuses what is not GRUB of that form.
func (b BIOS) check() error {
	if len(b.Boot) != sector || b.Boot[510] != 0x55 || b.Boot[511] != 0xaa || b.Boot[driveCheck] != 0xeb ||
		binary.LittleEndian.Uint64(b.Boot[kernelSector:]) != 1 {
		return qverr.New(qverr.Inval, "disklayout: boot.img (%d bytes) is not that of GRUB 2 for BIOS", len(b.Boot))
	}
	if len(b.Core) <= sector || len(b.Core) > maxCoreLength {
		return qverr.New(qverr.Inval, "disklayout: GRUB's core image has %d bytes", len(b.Core))
	}
	// What follows the first sector is loaded from a list of blocks at the end
	// of it.
	le := binary.LittleEndian
	rest := (len(b.Core) - 1) / sector
	if le.Uint16(b.Core[blocklist+8:]) != uint16(rest) || le.Uint16(b.Core[blocklist+10:]) != loadSegment {
		return qverr.New(qverr.Inval, "disklayout: the core image is not one of GRUB for disks")
	}
	return nil
}

// write puts the core image into its partition and returns the code of the first
// sector.
func (b BIOS) write(w io.WriterAt, p Partition) ([]byte, error) {
	if int64(len(b.Core)) > p.Size {
		return nil, qverr.New(qverr.Inval, "GRUB's core image of %d bytes does not fit into %s", len(b.Core), p.Name)
	}
	le := binary.LittleEndian
	core := make([]byte, p.Size)
	copy(core, b.Core)
	le.PutUint64(core[blocklist:], uint64(p.First)+1)
	if _, err := w.WriteAt(core, p.Offset); err != nil {
		return nil, err
	}
	code := append([]byte(nil), b.Boot[:bootCode]...)
	le.PutUint64(code[kernelSector:], uint64(p.First))
	// Some firmware passes a wrong number for the drive it has booted from;
	// without the jump a hard disk's is taken for right (util/setup.c).
	code[driveCheck], code[driveCheck+1] = 0x90, 0x90
	return code, nil
}
