package disks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Partition tables: UEFI specification 2.10, chapter 5.
const (
	gptSignature = "EFI PART"
	gptHeader    = 92
	maxEntries   = 1024
	maxEntry     = 4096

	mbrDiskID = 0x1B8
	mbrMagic  = 0x1FE
	mbrEntry0 = 0x1BE
	typeGPT   = 0xEE
)

// Kinds of tables.
const (
	TableGPT = "gpt"
	TableMBR = "mbr"
)

// Partition is an entry of a partition table. Numbers are the kernel's.
type Partition struct {
	Name string // GPT only
	UUID string // as in PARTUUID=
	Type string // GUID of a GPT entry, "0x83" of an MBR entry
}

// Table is a partition table.
type Table struct {
	Kind  string // TableGPT, TableMBR, "" for none
	Parts map[int]Partition
}

// ParseTable reads the partition table of a disk with sectors of the given
// size. A disk without a table has no partitions.
func ParseTable(disk io.ReaderAt, sector int64) (Table, error) {
	mbr := make([]byte, 512)
	if _, err := disk.ReadAt(mbr, 0); err != nil {
		return Table{}, fmt.Errorf("read the partition table: %w", err)
	}
	if mbr[mbrMagic] != 0x55 || mbr[mbrMagic+1] != 0xAA {
		return Table{}, nil
	}
	if mbr[mbrEntry0+4] == typeGPT {
		parts, err := parseGPT(disk, sector)
		return Table{TableGPT, parts}, err
	}
	if !plausibleMBR(mbr) {
		return Table{}, nil
	}
	// Extended partitions are numbered from 5 on; all are named by the disk.
	id := binary.LittleEndian.Uint32(mbr[mbrDiskID:])
	parts := make(map[int]Partition)
	for n := 1; n <= 16; n++ {
		p := Partition{UUID: fmt.Sprintf("%08x-%02x", id, n)}
		if n <= 4 {
			p.Type = fmt.Sprintf("0x%02x", mbr[mbrEntry0+16*(n-1)+4])
		}
		parts[n] = p
	}
	return Table{TableMBR, parts}, nil
}

// plausibleMBR tells an MBR from the boot sector of a FAT file system, which
// has the same magic: a status byte is 0 or 0x80, and one entry at least is used.
func plausibleMBR(mbr []byte) bool {
	used := false
	for e := mbrEntry0; e < mbrMagic; e += 16 {
		if mbr[e]&0x7F != 0 {
			return false
		}
		used = used || mbr[e+4] != 0
	}
	return used
}

func parseGPT(disk io.ReaderAt, sector int64) (map[int]Partition, error) {
	head := make([]byte, 512)
	if _, err := disk.ReadAt(head, sector); err != nil {
		return nil, fmt.Errorf("read the GPT: %w", err)
	}
	if string(head[:8]) != gptSignature {
		return nil, fmt.Errorf("the GPT has no header")
	}
	size := binary.LittleEndian.Uint32(head[12:])
	if size < gptHeader || size > uint32(len(head)) {
		return nil, fmt.Errorf("the GPT's header has %d bytes", size)
	}
	sum := binary.LittleEndian.Uint32(head[16:])
	clear(head[16:20])
	if crc32.ChecksumIEEE(head[:size]) != sum {
		return nil, fmt.Errorf("the GPT's header fails its checksum")
	}
	lba := binary.LittleEndian.Uint64(head[72:])
	count := binary.LittleEndian.Uint32(head[80:])
	entry := binary.LittleEndian.Uint32(head[84:])
	if count > maxEntries || entry < 128 || entry > maxEntry || lba > 1<<40 {
		return nil, fmt.Errorf("the GPT has %d entries of %d bytes at sector %d", count, entry, lba)
	}
	table := make([]byte, count*entry)
	if _, err := disk.ReadAt(table, int64(lba)*sector); err != nil {
		return nil, fmt.Errorf("read the GPT's entries: %w", err)
	}
	if crc32.ChecksumIEEE(table) != binary.LittleEndian.Uint32(head[88:]) {
		return nil, fmt.Errorf("the GPT's entries fail their checksum")
	}
	parts := make(map[int]Partition)
	for i := range int(count) {
		e := table[i*int(entry):]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		parts[i+1] = Partition{Name: partName(e[56:128]), UUID: guid(e[16:32]), Type: guid(e[:16])}
	}
	return parts, nil
}

// guid reads a GUID, whose first three fields are little-endian on disk.
func guid(b []byte) string {
	return uuid([]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]})
}

// uuid writes 16 bytes as RFC 9562 does.
func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func partName(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
