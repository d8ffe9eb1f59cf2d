package disks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// FileSystem is what a signature says about a partition or a whole disk. Type
// is the name that blkid(8) has for it.
type FileSystem struct {
	Type  string `json:"type"`
	Label string `json:"label,omitempty"`
	UUID  string `json:"uuid,omitempty"`
}

// signature is a magic number at its place; label is where a name stands.
type signature struct {
	kind        string
	at          int64
	magic       string
	label, size int64 // of the label, 0 for none
}

// signatures are those of file systems, volume managers and swap, as
// libblkid's superblock probes have them. The more certain come first.
var signatures = []signature{
	{"crypto_LUKS", 0, "LUKS\xba\xbe", 24, 48},
	{"LVM2_member", 512, "LABELONE", 0, 0},
	{"linux_raid_member", 4096, "\xfc\x4e\x2b\xa9", 4128, 32},
	{"linux_raid_member", 0, "\xfc\x4e\x2b\xa9", 32, 32},
	{"xfs", 0, "XFSB", 108, 12},
	{"btrfs", 0x10040, "_BHRfS_M", 0x1012B, 256},
	{"f2fs", 1024, "\x10\x20\xf5\xf2", 0, 0},
	{"bcache", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", 0, 0},
	{"swap", 4086, "SWAPSPACE2", 1052, 16},
	{"squashfs", 0, "hsqs", 0, 0},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", 1088, 16},
	{"ntfs", 3, "NTFS    ", 0, 0},
	{"exfat", 3, "EXFAT   ", 0, 0},
	{"vfat", 82, "FAT32   ", 71, 11},
	{"vfat", 54, "FAT16   ", 43, 11},
	{"vfat", 54, "FAT12   ", 43, 11},
	{"iso9660", 0x8001, "CD001", 0x8028, 32},
	{"VMFS_volume_member", 0x100000, "\x0d\xd0\x01\xc0", 0, 0},
	{"zfs_member", 0x21000, "\x0c\xb1\xba\x00\x00\x00\x00\x00", 0, 0},
}

// Identify finds the file system that begins at the start of r; false: none
// that is known. A volume too small for a signature does not have it.
func Identify(r io.ReaderAt) (FileSystem, bool, error) {
	sb, err := readAt(r, SuperOffset, SuperSize)
	if err != nil {
		return FileSystem{}, false, err
	}
	if e, ok := ParseExt4(sb); ok {
		kind := "ext2"
		if e.Journal {
			kind = "ext4"
		}
		return FileSystem{Type: kind, Label: printable([]byte(e.Label)), UUID: e.UUID}, true, nil
	}
	for _, s := range signatures {
		have, err := readAt(r, s.at, int64(len(s.magic)))
		if err != nil {
			return FileSystem{}, false, err
		}
		if string(have) != s.magic {
			continue
		}
		fs := FileSystem{Type: s.kind}
		if s.size > 0 {
			label, err := readAt(r, s.label, s.size)
			if err != nil {
				return FileSystem{}, false, err
			}
			fs.Label = printable(label)
		}
		if s.magic == "FAT32   " {
			fs.UUID = fatID(r)
		}
		return fs, true, nil
	}
	return FileSystem{}, false, nil
}

// fatID is the serial number of a FAT32 volume, as blkid writes it.
func fatID(r io.ReaderAt) string {
	b, err := readAt(r, 67, 4)
	if err != nil || len(b) < 4 {
		return ""
	}
	const hex = "0123456789ABCDEF"
	id := binary.LittleEndian.Uint32(b)
	var out []byte
	for shift := 28; shift >= 0; shift -= 4 {
		if shift == 12 {
			out = append(out, '-')
		}
		out = append(out, hex[id>>shift&15])
	}
	return string(out)
}

// readAt reads n bytes, fewer where r ends before.
func readAt(r io.ReaderAt, at, n int64) ([]byte, error) {
	buf := make([]byte, n)
	k, err := r.ReadAt(buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:k], nil
}

// printable is a label up to its end, without what a terminal must not see.
func printable(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), ""))
	return strings.TrimRight(text, " ")
}

// edge is how much is read at the start and the end of a disk to tell whether
// there is anything on it: every signature above lies in it, and so do the
// backups of partition tables and of RAID at the end.
const edge = 2 << 20

// Blank tells whether the first and last 2 MiB of a disk of this size hold
// nothing: zeroes, or ones as some flash returns for erased blocks. at is the
// first byte that holds something.
func Blank(r io.ReaderAt, size int64) (blank bool, at int64, err error) {
	var fill byte
	buf := make([]byte, 256<<10)
	for i, part := range [][2]int64{{0, min(edge, size)}, {max(edge, size-edge), size}} {
		for off := part[0]; off < part[1]; off += int64(len(buf)) {
			b := buf[:min(int64(len(buf)), part[1]-off)]
			if n, err := r.ReadAt(b, off); n < len(b) {
				return false, off, err
			}
			if i == 0 && off == 0 && b[0] == 0xFF {
				fill = 0xFF
			}
			for k, c := range b {
				if c != fill {
					return false, off + int64(k), nil
				}
			}
		}
	}
	return true, 0, nil
}
