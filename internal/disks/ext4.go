package disks

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Where the superblock is and what of it is read, from
// Documentation/filesystems/ext4/super.rst of the kernel.
const (
	SuperOffset = 1024 // bytes from the start of the file system
	SuperSize   = 1024 // bytes

	superMagic       = 0xEF53
	stateValid       = 0x1 // unmounted cleanly, as far as it has no journal
	stateErrors      = 0x2 // errors were found in the file system
	incompatRecover  = 0x4 // the journal holds what is not written yet
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
	Clean   bool // unmounted in order, nothing left in the journal

	mounts, maxMounts int16 // since the last check; maxMounts below 1: no limit
	checked, interval int64 // seconds; interval 0: no limit
}

// ParseExt4 reads a superblock of SuperSize bytes.
func ParseExt4(sb []byte) (Ext4, bool) {
	if len(sb) < SuperSize || binary.LittleEndian.Uint16(sb[0x38:]) != superMagic {
		return Ext4{}, false
	}
	le16 := func(at int) uint16 { return binary.LittleEndian.Uint16(sb[at:]) }
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
		Errors:  le16(0x3A)&stateErrors != 0,
		Journal: le32(0x5C)&compatHasJournal != 0,
		Clean:   le16(0x3A)&stateValid != 0 && le32(0x60)&incompatRecover == 0,
		mounts:  int16(le16(0x34)), maxMounts: int16(le16(0x36)),
		checked: int64(le32(0x40)), interval: int64(le32(0x44)),
	}, true
}

// CheckWanted says why the file system should be checked before it is mounted,
// as e2fsck(8) would decide; "" if there is no reason.
func (e Ext4) CheckWanted(now time.Time) string {
	switch {
	case e.Errors:
		return "the kernel found errors in it"
	case !e.Clean:
		return "it was not unmounted in order"
	case e.maxMounts > 0 && e.mounts >= e.maxMounts:
		return "it was mounted often since its last check"
	case e.interval > 0 && now.Unix() >= e.checked+e.interval:
		return "its last check was long ago"
	}
	return ""
}
