// Package disktest makes contents of disks for tests: what mkfs and
// partitioning programs write, as far as package disks reads it.
package disktest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// Super is the superblock of an ext4 file system of 1 MiB.
func Super(label string) []byte {
	sb := make([]byte, 1024)
	binary.LittleEndian.PutUint16(sb[0x38:], 0xEF53)
	binary.LittleEndian.PutUint16(sb[0x3A:], 1)
	binary.LittleEndian.PutUint16(sb[0x36:], 0xFFFF)
	binary.LittleEndian.PutUint32(sb[0x4:], 256)
	binary.LittleEndian.PutUint32(sb[0x18:], 2)
	binary.LittleEndian.PutUint32(sb[0x5C:], 4)
	copy(sb[0x68:], "0123456789abcdef")
	copy(sb[0x78:0x88], label)
	return sb
}

// Ext4 is the beginning of a file system with that superblock.
func Ext4(label string) []byte { return append(make([]byte, 1024), Super(label)...) }

// GPT is a disk of 64 KiB with partitions of these names; the GUID of
// partition n ends in n-1.
func GPT(names ...string) []byte {
	disk := make([]byte, 64<<10)
	disk[0x1FE], disk[0x1FF], disk[0x1BE+4] = 0x55, 0xAA, 0xEE
	table := disk[1024 : 1024+128*128]
	for i, name := range names {
		e := table[i*128:]
		copy(e, bytes.Repeat([]byte{1}, 16))
		copy(e[16:], []byte{0x78, 0x56, 0x34, 0x12, 0xBC, 0x9A, 0xF0, 0xDE, 1, 2, 3, 4, 5, 6, 7, byte(i)})
		for k, u := range utf16.Encode([]rune(name)) {
			binary.LittleEndian.PutUint16(e[56+2*k:], u)
		}
	}
	head := disk[512:1024]
	copy(head, "EFI PART")
	binary.LittleEndian.PutUint32(head[12:], 92)
	binary.LittleEndian.PutUint64(head[72:], 2)
	binary.LittleEndian.PutUint32(head[80:], 128)
	binary.LittleEndian.PutUint32(head[84:], 128)
	binary.LittleEndian.PutUint32(head[88:], crc32.ChecksumIEEE(table))
	binary.LittleEndian.PutUint32(head[16:], crc32.ChecksumIEEE(head[:92]))
	return disk
}

// MBR is the first sector of a disk with one Linux partition; its id is
// cafe1234.
func MBR() []byte {
	mbr := make([]byte, 512)
	mbr[0x1FE], mbr[0x1FF], mbr[0x1BE+4] = 0x55, 0xAA, 0x83
	binary.LittleEndian.PutUint32(mbr[0x1B8:], 0xCAFE1234)
	return mbr
}
