package efivar

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Dir is where PID 1 mounts efivarfs.
const Dir = "/sys/firmware/efi/efivars"

// Global is EFI_GLOBAL_VARIABLE, the vendor of the variables that the
// specification itself names (section 3.3).
var Global = uuid.MustParse("8be4df61-93ca-11d2-aa0d-00e098032b8c")

// Attributes of a variable.
const (
	NonVolatile   = 0x1
	BootAccess    = 0x2
	RuntimeAccess = 0x4
)

// maxSize bounds a variable that is read, in bytes; firmware's own bound is below it.
const maxSize = 1 << 20

// attributesSize is that of the attributes, which stand before the value in a file
// of efivarfs (Documentation/filesystems/efivarfs.rst).
const attributesSize = 4

// immutable is FS_IMMUTABLE_FL (linux/fs.h).
const immutable = 0x10

// Variables are those of one vendor. Errors: QV_ERR_NOENT: there is no such
// variable; else that of the operating system.
type Variables interface {
	Names() ([]string, error)
	Get(name string) (attributes uint32, value []byte, err error)
	Set(name string, attributes uint32, value []byte) error
	Delete(name string) error
}

// Files are the variables of a vendor in an efivarfs.
type Files struct {
	Dir    string
	Vendor uuid.UUID
}

var _ Variables = Files{}

func (f Files) suffix() string          { return "-" + f.Vendor.String() }
func (f Files) path(name string) string { return filepath.Join(f.Dir, name+f.suffix()) }

func failed(what, name string, err error) error {
	return qverr.New(qverr.CodeOf(err), "%s firmware variable %s: %w", what, name, err)
}

// Names implements Variables.
func (f Files) Names() ([]string, error) {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "list the firmware's variables: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), f.suffix()); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// Get implements Variables. The firmware is asked once: a variable that another
// changes meanwhile would come in two parts otherwise.
func (f Files) Get(name string) (attributes uint32, value []byte, err error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return 0, nil, failed("read", name, err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return 0, nil, failed("read", name, err)
	}
	data := make([]byte, min(max(info.Size(), attributesSize), maxSize)+1)
	n, err := file.Read(data)
	if err != nil {
		return 0, nil, failed("read", name, err)
	}
	if n < attributesSize || n == len(data) {
		return 0, nil, qverr.New(qverr.IO, "read firmware variable %s: %d bytes of %d", name, n, info.Size())
	}
	return binary.LittleEndian.Uint32(data), data[attributesSize:n], nil
}

// Set implements Variables: one write of attributes and value, as the firmware
// takes them whole.
func (f Files) Set(name string, attributes uint32, value []byte) error {
	data := append(binary.LittleEndian.AppendUint32(nil, attributes), value...)
	err := f.unprotected(name, func() error {
		file, err := os.OpenFile(f.path(name), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = file.Write(data)
		return errors.Join(err, file.Close())
	})
	if err != nil {
		return failed("write", name, err)
	}
	return nil
}

// Delete implements Variables. A variable that is not there is no error.
func (f Files) Delete(name string) error {
	err := f.unprotected(name, func() error { return os.Remove(f.path(name)) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("delete", name, err)
	}
	return nil
}

// unprotected calls change while the file is not immutable. The kernel makes those
// so without which some firmware does not start any more; what comes after it is
// immutable again.
func (f Files) unprotected(name string, change func() error) error {
	flags, err := f.flags(name)
	if err != nil || flags&immutable == 0 { // not there yet, or a file system without flags
		return change()
	}
	if err := f.setFlags(name, flags&^immutable); err != nil {
		return err
	}
	err = change()
	if again := f.setFlags(name, flags); again != nil && !errors.Is(again, fs.ErrNotExist) {
		err = errors.Join(err, again)
	}
	return err
}

func (f Files) flags(name string) (int, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	return unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
}

func (f Files) setFlags(name string, flags int) error {
	file, err := os.Open(f.path(name))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags)
}
