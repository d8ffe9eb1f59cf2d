// Package dm makes encrypted devices by the kernel's device mapper: its ioctl
// interface is include/uapi/linux/dm-ioctl.h of Linux, the target is described in
// Documentation/admin-guide/device-mapper/dm-crypt.rst.
package dm

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Control is the device of the device mapper. It is there once its module is
// loaded.
const Control = "/dev/mapper/control"

// Requests of the interface, version 4.0.0.
const (
	devCreate  = 3
	devRemove  = 4
	devSuspend = 6
	tableLoad  = 9

	request = 0xC138FD00 // _IOWR(0xfd, 0, struct dm_ioctl)
)

// struct dm_ioctl and struct dm_target_spec, in bytes.
const (
	atSize   = 12
	atStart  = 16
	atCount  = 20
	atFlags  = 28
	atDev    = 40
	atName   = 48
	nameSize = 128
	atUUID   = 176
	uuidSize = 129
	headSize = 312

	specLength = 8
	specType   = 24
	specSize   = 40
)

const secureData = 1 << 15 // DM_SECURE_DATA_FLAG: the kernel wipes its copies

// Crypt is an encrypted device.
type Crypt struct {
	Device     string // what it lies on
	Offset     int64  // of the encrypted data there, bytes
	Size       int64  // bytes
	Cipher     string // aes-xts-plain64
	Key        []byte
	SectorSize int // bytes
}

// Open makes the device /dev/dm-N, which has the name in /sys too. QV_ERR_EXIST:
// there is one of that name; QV_ERR_UNSUPPORTED: the kernel has no device mapper.
func (c Crypt) Open(name, uuid string) (device string, err error) {
	if len(name) >= nameSize || len(uuid) >= uuidSize || c.Offset%512 != 0 || c.Size%int64(c.SectorSize) != 0 || c.Size <= 0 {
		return "", qverr.New(qverr.Inval, "an encrypted device %q of %d bytes from %d on", name, c.Size, c.Offset)
	}
	control, err := os.OpenFile(Control, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", qverr.New(qverr.Unsupported, "the kernel has no device mapper: its module dm_crypt is not loaded")
	}
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "device mapper: %w", err)
	}
	defer func() { _ = control.Close() }()
	created, err := call(control, devCreate, name, uuid, 0, nil)
	if errors.Is(err, unix.EBUSY) {
		return "", qverr.New(qverr.Exist, "there is an encrypted device %s already", name)
	}
	if err != nil {
		return "", failed(name, "make it", err)
	}
	spec := c.table()
	defer clear(spec)
	if _, err := call(control, tableLoad, name, "", secureData, spec); err != nil {
		return "", errors.Join(failed(name, "load its table", err), remove(control, name))
	}
	if _, err := call(control, devSuspend, name, "", 0, nil); err != nil { // without the flag to suspend: resume
		return "", errors.Join(failed(name, "start it", err), remove(control, name))
	}
	dev := binary.NativeEndian.Uint64(created[atDev:])
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(dev)), nil
}

// table is a target with its parameters.
func (c Crypt) table() []byte {
	params := fmt.Appendf(nil, "%s %s 0 %s %d", c.Cipher, hex.EncodeToString(c.Key), c.Device, c.Offset/512)
	if c.SectorSize != 512 {
		params = fmt.Appendf(params, " 1 sector_size:%d", c.SectorSize)
	}
	spec := make([]byte, (specSize+len(params)+8)&^7) // with a NUL, then to a multiple of eight
	binary.NativeEndian.PutUint64(spec[specLength:], uint64(c.Size/512))
	copy(spec[specType:], "crypt")
	copy(spec[specSize:], params)
	clear(params)
	return spec
}

// Close removes a device. QV_ERR_BUSY: somebody uses it.
func Close(name string) error {
	control, err := os.OpenFile(Control, os.O_RDWR, 0)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "device mapper: %w", err)
	}
	defer func() { _ = control.Close() }()
	return remove(control, name)
}

func remove(control *os.File, name string) error {
	_, err := call(control, devRemove, name, "", 0, nil)
	if err != nil {
		return failed(name, "remove it", err)
	}
	return nil
}

func failed(name, what string, err error) error {
	return qverr.New(qverr.CodeOf(err), "encrypted device %s: %s: %w", name, what, err)
}

// call makes a request with a target, or without one.
func call(control *os.File, nr uintptr, name, uuid string, flags uint32, spec []byte) ([]byte, error) {
	b := make([]byte, headSize+len(spec))
	binary.NativeEndian.PutUint32(b, 4) // version of the interface
	binary.NativeEndian.PutUint32(b[atSize:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[atStart:], headSize)
	if spec != nil {
		binary.NativeEndian.PutUint32(b[atCount:], 1)
	}
	binary.NativeEndian.PutUint32(b[atFlags:], flags)
	copy(b[atName:], name)
	copy(b[atUUID:], uuid)
	copy(b[headSize:], spec)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), request|nr, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	clear(b[headSize:])
	if errno != 0 {
		return nil, errno
	}
	return b[:headSize], nil
}

// Find returns the device that has a name, by the /sys of a machine.
func Find(sys, name string) (device string, ok bool) {
	files, err := filepath.Glob(filepath.Join(sys, "class/block/dm-*/dm/name"))
	if err != nil {
		return "", false
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && string(text) == name+"\n" {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file))), true
		}
	}
	return "", false
}
