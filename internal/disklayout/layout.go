package disklayout

import (
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/fat32"
	"quantavirt/internal/qverr"
)

// Names of the partitions, in the table; those of ESP and data volume are the
// labels of their file systems too.
const (
	NameBIOS = "QV-BIOS"
	NameESP  = "QV-ESP"
	NameData = "QV-DATA"
)

// ESPInstalled is the size of the EFI system partition of an installed disk, in
// bytes: room for two slots and whatever else a firmware puts there.
const ESPInstalled = 2 << 30

// MinESP is the smallest EFI system partition, in bytes: FAT32 has at least
// 65525 clusters.
const (
	MinESP    = 34 << 20
	MinESP4Kn = 260 << 20 // with sectors of 4096 bytes
)

// alignment of partitions, in bytes, and size of QV-BIOS.
const alignment = 1 << 20

// Types of partition: UEFI specification, table 5.7; the BIOS boot partition is
// GRUB's (manual, section "BIOS installation").
var (
	typeBIOS = uuid.MustParse("21686148-6449-6E6F-744E-656564454649")
	typeESP  = uuid.MustParse("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	typeData = uuid.MustParse("0FC63DAF-8483-4772-8E79-3D69D8477DE4") // Linux file system
)

// Disk is a disk to be laid out.
type Disk struct {
	Size       int64 // bytes
	SectorSize int64 // logical: 512 or 4096 bytes
	ESP        int64 // bytes, a multiple of 1 MiB
	Data       bool  // QV-DATA takes what the ESP leaves
	IDs        IDs
}

// IDs are the unique identifiers of a disk and its partitions.
type IDs struct {
	Disk, BIOS, ESP, Data uuid.UUID
}

// RandomIDs are those of a disk being installed.
func RandomIDs() IDs {
	return IDs{Disk: uuid.New(), BIOS: uuid.New(), ESP: uuid.New(), Data: uuid.New()}
}

// DerivedIDs are those of a medium: the same for the same content.
func DerivedIDs(content string) IDs {
	id := func(part string) uuid.UUID { return uuid.NewSHA1(typeData, []byte(content+"\x00"+part)) }
	return IDs{Disk: id("disk"), BIOS: id(NameBIOS), ESP: id(NameESP), Data: id(NameData)}
}

// Partition is an entry of the table.
type Partition struct {
	Number      int // from 1
	Name        string
	Type, ID    uuid.UUID
	First, Last int64 // sectors
	Offset      int64 // bytes
	Size        int64 // bytes
}

// Partitions returns the partitions of the disk: QV-BIOS, QV-ESP and, with
// Disk.Data, QV-DATA.
func (d Disk) Partitions() ([]Partition, error) {
	if d.SectorSize != 512 && d.SectorSize != 4096 {
		return nil, qverr.New(qverr.Inval, "disklayout: sectors of %d bytes: want 512 or 4096", d.SectorSize)
	}
	if d.Size%d.SectorSize != 0 {
		return nil, qverr.New(qverr.Inval, "disklayout: %d bytes are no whole sectors of %d", d.Size, d.SectorSize)
	}
	smallest := int64(MinESP)
	if d.SectorSize == 4096 {
		smallest = MinESP4Kn
	}
	if d.ESP < smallest || d.ESP%alignment != 0 {
		return nil, qverr.New(qverr.Inval, "disklayout: EFI system partition of %d bytes: want a multiple of 1 MiB, at least %d", d.ESP, smallest)
	}
	end := (d.Size - d.tail()) / alignment * alignment
	esp := Partition{Number: 2, Name: NameESP, Type: typeESP, ID: d.IDs.ESP, Offset: 2 * alignment, Size: d.ESP}
	parts := []Partition{
		{Number: 1, Name: NameBIOS, Type: typeBIOS, ID: d.IDs.BIOS, Offset: alignment, Size: alignment},
		esp,
	}
	free := end - esp.Offset - esp.Size
	if d.Data {
		parts = append(parts, Partition{Number: 3, Name: NameData, Type: typeData, ID: d.IDs.Data, Offset: esp.Offset + esp.Size, Size: free})
		free -= alignment
	}
	if free < 0 {
		return nil, qverr.New(qverr.NoSpc, "disklayout: the disk of %d bytes is too small, %d are missing", d.Size, -free)
	}
	for i := range parts {
		p := &parts[i]
		p.First, p.Last = p.Offset/d.SectorSize, (p.Offset+p.Size)/d.SectorSize-1
	}
	return parts, nil
}

// MinSize is the size of the smallest disk, in whole MiB, that has room for an
// EFI system partition of a size and no data partition; in bytes.
func MinSize(esp int64) int64 { return 3*alignment + esp }

// Format writes the disk: the EFI system partition with its files, the boot code
// for BIOS, and last the partition table. It returns where the files lie on the
// disk. The data partition's content is not touched.
//
// A disk with sectors of 4096 bytes gets no boot code: BIOS cannot read it.
func (d Disk) Format(w io.WriterAt, boot BIOS, v ESP) ([]fat32.Extent, error) {
	parts, err := d.Partitions()
	if err != nil {
		return nil, err
	}
	if err := boot.check(); err != nil {
		return nil, err
	}
	// What was there stops being a partitioned disk first.
	for _, at := range []int64{0, d.Size - alignment} {
		if _, err := w.WriteAt(make([]byte, alignment), at); err != nil {
			return nil, fmt.Errorf("disklayout: %w", err)
		}
	}
	esp := parts[1]
	extents, err := fat32.Format(io.NewOffsetWriter(w, esp.Offset), fat32.Volume{
		Label: NameESP, Serial: v.Serial, Size: esp.Size, SectorSize: int(d.SectorSize),
		Hidden: uint32(esp.First), Time: v.Time, Files: v.Files,
	})
	if err != nil {
		return nil, fmt.Errorf("disklayout: %w", err)
	}
	for i := range extents {
		extents[i].Offset += esp.Offset
	}
	code := make([]byte, bootCode)
	if d.SectorSize == 512 {
		if code, err = boot.write(w, parts[0]); err != nil {
			return nil, fmt.Errorf("disklayout: boot code: %w", err)
		}
	}
	if err := d.writeTable(w, code, parts); err != nil {
		return nil, fmt.Errorf("disklayout: partition table: %w", err)
	}
	return extents, nil
}

// ESP is what an EFI system partition is made from.
type ESP struct {
	Serial uint32
	Time   time.Time
	Files  []fat32.File
}
