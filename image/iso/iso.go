package iso

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// SectorSize of optical discs, in bytes. Files begin at multiples of it.
const SectorSize = 2048

// Limit is where everything that Write writes must end, in bytes: the place of
// the first partition.
const Limit = 1 << 20

// Disc is a file system to be added to a disk.
type Disc struct {
	Label string    // 1 to 32 of A-Z, 0-9 and _
	Time  time.Time // of everything, kept in UTC, 1900 to 2155
	Size  int64     // of the disk in bytes, a multiple of SectorSize
	Files []File
	BIOS  []byte // boot image for BIOS (GRUB's i386-pc-eltorito)
	EFI   int64  // offset of the EFI system partition, in bytes; it is taken to reach to the end
}

// File is a file that lies on the disk.
type File struct {
	Name   string // path
	Offset int64  // bytes, a multiple of SectorSize
	Size   int64  // bytes
}

// BIOSFile is the name of the boot image for BIOS on the disc.
const BIOSFile = "grub/eltorito.img"

// Sectors of the descriptors (ECMA-119 6.7.1: they begin at 16).
const (
	sectorPrimary = 16 + iota
	sectorBoot    // El Torito demands 17
	sectorEnd
	sectorCatalog
	sectorPathsLE
	sectorPathsBE
	sectorFree // directories and the boot image follow
)

// Write adds the file system to the disk.
func (d Disc) Write(w io.WriterAt) error {
	if err := d.check(); err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	root, err := d.tree()
	if err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	// The boot image is a file too, for whoever copies the disc.
	boot, err := root.file(File{Name: BIOSFile, Size: int64(len(d.BIOS))})
	if err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	root.order()
	next := uint32(sectorFree)
	all := root.flat()
	for _, dir := range all {
		dir.sector, dir.size = next, uint32(len(d.directory(dir)))
		next += dir.size / SectorSize
	}
	boot.file.Offset = int64(next) * SectorSize
	image := d.bootImage(next)
	if end := int64(next)*SectorSize + int64(len(image)); end > Limit {
		return fmt.Errorf("iso: directories and boot image end at %d, there is room up to %d", end, Limit)
	}
	little, big := paths(all)
	if len(little) > SectorSize {
		return fmt.Errorf("iso: %d directories are too many", len(all))
	}
	pieces := map[uint32][]byte{
		sectorPrimary: d.primary(root, len(little)), sectorBoot: bootRecord(), sectorEnd: terminator(),
		sectorCatalog: d.catalog(next), sectorPathsLE: little, sectorPathsBE: big, next: image,
	}
	for _, dir := range all {
		pieces[dir.sector] = d.directory(dir)
	}
	for sector, data := range pieces {
		padded := make([]byte, int(sectors(len(data)))*SectorSize)
		copy(padded, data)
		if _, err := w.WriteAt(padded, int64(sector)*SectorSize); err != nil {
			return fmt.Errorf("iso: %w", err)
		}
	}
	return nil
}

func (d Disc) check() error {
	if d.Label == "" || len(d.Label) > 32 || d.Label != identifier(d.Label) {
		return fmt.Errorf("label %q: want 1 to 32 of A-Z, 0-9 and _", d.Label)
	}
	if d.Size%SectorSize != 0 || d.Size > math.MaxUint32*SectorSize || d.EFI%SectorSize != 0 || d.EFI < Limit || d.EFI >= d.Size {
		return fmt.Errorf("a disk of %d bytes with an EFI system partition at %d", d.Size, d.EFI)
	}
	if y := d.Time.UTC().Year(); y < 1900 || y > 2155 {
		return fmt.Errorf("the year %d cannot be written", y)
	}
	if len(d.BIOS) < 64 {
		return fmt.Errorf("a boot image of %d bytes", len(d.BIOS))
	}
	for _, f := range d.Files {
		if f.Size < 0 || f.Size > math.MaxUint32 || f.Offset%SectorSize != 0 || f.Offset < 0 || f.Offset+f.Size > d.Size {
			return fmt.Errorf("%s: %d bytes at %d", f.Name, f.Size, f.Offset)
		}
	}
	return nil
}

// sectors that so many bytes take.
func sectors(n int) uint32 { return uint32((n + SectorSize - 1) / SectorSize) }

// primary is the primary volume descriptor (8.4).
func (d Disc) primary(root *directory, pathBytes int) []byte {
	b := make([]byte, SectorSize)
	copy(b, "\x01CD001\x01")
	blank(b[8:40])
	text(b[40:72], d.Label)
	both32(b[80:], uint32(d.Size/SectorSize))
	both16(b[120:], 1)
	both16(b[124:], 1)
	both16(b[128:], SectorSize)
	both32(b[132:], uint32(pathBytes))
	binary.LittleEndian.PutUint32(b[140:], sectorPathsLE)
	binary.BigEndian.PutUint32(b[148:], sectorPathsBE)
	copy(b[156:190], d.record("\x00", root.sector, root.size, true, nil))
	blank(b[190:813]) // volume set, publisher, preparer, application, files
	text(b[574:702], "QUANTAVIRT")
	long := d.Time.UTC().Format("20060102150405") + "00\x00" // offset from UTC in the last byte
	for _, at := range []int{813, 830} {
		copy(b[at:], long)
	}
	copy(b[847:], strings.Repeat("0", 16)+"\x00") // does not expire
	copy(b[864:], long)
	b[881] = 1
	return b
}

// terminator ends the descriptors (8.3).
func terminator() []byte { return []byte("\xffCD001\x01") }

// Both byte orders, one after the other (7.2.3, 7.3.3).
func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func blank(b []byte) {
	for i := range b {
		b[i] = ' '
	}
}

func text(b []byte, s string) {
	blank(b)
	copy(b, s)
}
