package volume

import (
	"bytes"
	"encoding/binary"
)

// Where the superblock is and what of it is read, from
// Documentation/filesystems/ext4/super.rst of the kernel.
const (
	superOffset = 1024
	superSize   = 1024

	superMagic       = 0xEF53
	stateErrors      = 0x2 // errors were found in the file system
	incompat64bit    = 0x80
	compatHasJournal = 0x4
)

// Ext4 is what the superblock of an ext file system says.
type Ext4 struct {
	Label   string
	UUID    string
	Size    int64 // bytes
	Errors  bool  // the kernel found errors in it
	Journal bool
}

// ParseExt4 reads a superblock of superSize bytes.
func ParseExt4(sb []byte) (Ext4, bool) {
	if len(sb) < superSize || binary.LittleEndian.Uint16(sb[0x38:]) != superMagic {
		return Ext4{}, false
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	logBlock := le32(0x18)
	if logBlock > 6 { // 64 KiB
		return Ext4{}, false
	}
	blocks := uint64(le32(0x4))
	if le32(0x60)&incompat64bit != 0 {
		blocks |= uint64(le32(0x150)) << 32
	}
	if blocks >= 1<<47 {
		return Ext4{}, false
	}
	label, _, _ := bytes.Cut(sb[0x78:0x88], []byte{0})
	return Ext4{
		Label: string(label), UUID: uuid(sb[0x68:0x78]), Size: int64(blocks << (10 + logBlock)),
		Errors:  binary.LittleEndian.Uint16(sb[0x3A:])&stateErrors != 0,
		Journal: le32(0x5C)&compatHasJournal != 0,
	}, true
}
