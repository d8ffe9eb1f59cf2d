package disklayout

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"unicode/utf16"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
)

// The table has room for 128 entries, as the specification demands at least.
const (
	entries   = 128
	entrySize = 128
	tableSize = entries * entrySize
	headSize  = 92
	nameUnits = 36 // UTF-16
)

// tail is what the backup table takes at the end of the disk, in bytes.
func (d Disk) tail() int64 { return tableSize + d.SectorSize }

// writeTable writes the backup first and the first sector last, so that at any
// moment there is no table or a whole one.
func (d Disk) writeTable(w io.WriterAt, code []byte, parts []Partition) error {
	table, err := encode(parts)
	if err != nil {
		return err
	}
	last := d.Size/d.SectorSize - 1
	array := tableSize / d.SectorSize
	for _, piece := range []struct {
		data   []byte
		sector int64
	}{
		{table, last - array},
		{d.header(table, last, 1, last-array), last},
		{table, 2},
		{d.header(table, 1, last, 2), 1},
		{d.mbr(code), 0},
	} {
		if _, err := w.WriteAt(piece.data, piece.sector*d.SectorSize); err != nil {
			return err
		}
	}
	return nil
}

// encode makes the array of entries (UEFI 5.3.3).
func encode(parts []Partition) ([]byte, error) {
	table := make([]byte, tableSize)
	le := binary.LittleEndian
	for _, p := range parts {
		e := table[(p.Number-1)*entrySize:]
		copy(e, guid(p.Type))
		copy(e[16:], guid(p.ID))
		le.PutUint64(e[32:], uint64(p.First))
		le.PutUint64(e[40:], uint64(p.Last))
		name := utf16.Encode([]rune(p.Name))
		if len(name) > nameUnits {
			return nil, qverr.New(qverr.Inval, "name %q is too long", p.Name)
		}
		for i, u := range name {
			le.PutUint16(e[56+2*i:], u)
		}
	}
	return table, nil
}

// header makes a sector with the header (UEFI 5.3.2) that stands at a sector.
func (d Disk) header(table []byte, at, other, array int64) []byte {
	b := make([]byte, d.SectorSize)
	le := binary.LittleEndian
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], headSize)
	le.PutUint64(b[24:], uint64(at))
	le.PutUint64(b[32:], uint64(other))
	le.PutUint64(b[40:], uint64(2+tableSize/d.SectorSize))
	le.PutUint64(b[48:], uint64((d.Size-d.tail())/d.SectorSize-1))
	copy(b[56:], guid(d.IDs.Disk))
	le.PutUint64(b[72:], uint64(array))
	le.PutUint32(b[80:], entries)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headSize]))
	return b
}

// mbr is the first sector: boot code, and one partition that covers the disk for
// whoever does not know GPT (UEFI 5.2.3).
func (d Disk) mbr(code []byte) []byte {
	b := make([]byte, d.SectorSize)
	copy(b[:bootCode], code)
	e := b[446:]
	copy(e[1:], "\x00\x02\x00")                 // cylinder 0, head 0, sector 2
	copy(e[4:], "\xee\xff\xff\xff\x01\x00\x00") // GPT protective, to the last cylinder, from sector 1
	binary.LittleEndian.PutUint32(e[12:], uint32(min(d.Size/d.SectorSize-1, math.MaxUint32)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// guid is an identifier as it lies on the disk: its first three fields are
// little-endian (UEFI, appendix A).
func guid(u uuid.UUID) []byte {
	return []byte{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}
