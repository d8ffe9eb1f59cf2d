// Package medium finds out what the node booted from: the boot loader says so in
// variables of the UEFI firmware or, with BIOS, on the kernel command line.
//
// The variables are those of the systemd Boot Loader Interface, which systemd-boot and
// the stub of unified kernel images write
// (https://systemd.io/BOOT_LOADER_INTERFACE).
package medium

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf16"

	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// Media of a boot, as in wire.Boot.
const (
	UEFIDisk = "uefi-disk"
	BIOSDisk = "bios-disk"
	ISO      = "iso"
	PXE      = "pxe"
	Direct   = "direct" // a kernel that something loaded, without a medium of ours
)

// vendor is the GUID of the Boot Loader Interface's variables.
const vendor = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// maxVariable bounds a variable, in bytes.
const maxVariable = 4 << 10

// Loader is what the boot loader said.
type Loader struct {
	UEFI     bool
	Stub     bool   // a unified kernel image was started
	PartUUID string // of the EFI system partition, lower case; "" unknown
	Slot     uint32 // 0: none of ours
	Trial    bool   // the loader only tries it
}

var partUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Read reads the variables in dir, an efivarfs. What the command line says
// comes before them: they stay as they were when a kernel starts another. option returns
// the value of a quantavirt option.
func Read(dir string, uefi bool, option func(name string) (string, bool)) (Loader, error) {
	l := Loader{UEFI: uefi}
	partition, _ := option("esp")
	if digits, ok := option("slot"); ok {
		seq, err := slot.ParseSequence(digits)
		partition = strings.ToLower(partition)
		if err == nil && !partUUID.MatchString(partition) {
			err = qverr.New(qverr.Config, "quantavirt.esp=%.80s is no PARTUUID of a GPT", partition)
		}
		if err != nil {
			return l, qverr.New(qverr.Config, "what the boot loader says: %w", err)
		}
		l.Slot, l.PartUUID = seq, partition
		_, l.Trial = option("try")
		return l, nil
	}
	if !uefi {
		return l, nil
	}
	// The stub's own variables come first: those of the loader are of whatever
	// started it.
	var errs []error
	get := func(names ...string) string {
		for _, name := range names {
			value, err := variable(dir, name)
			if err == nil && value != "" {
				return value
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return ""
	}
	image := get("StubImageIdentifier", "LoaderImageIdentifier")
	l.Stub = image != ""
	if id := strings.ToLower(get("StubDevicePartUUID", "LoaderDevicePartUUID")); partUUID.MatchString(id) {
		l.PartUUID = id
	}
	if n, ok := slot.ParseName(image[strings.LastIndexByte(image, '\\')+1:]); ok {
		l.Slot, l.Trial = n.Sequence, n.Counted
	}
	return l, errors.Join(errs...)
}

// variable is the text of a variable: four bytes of attributes (UEFI
// specification 2.10, 8.2), then UTF-16 in little endian up to a NUL.
func variable(dir, name string) (string, error) {
	f, err := os.Open(filepath.Join(dir, name+vendor))
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "firmware variable %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	data := make([]byte, maxVariable)
	n, err := f.Read(data)
	if err != nil || n < 4 {
		return "", qverr.New(qverr.IO, "firmware variable %s: %d bytes: %w", name, n, err)
	}
	var units []uint16
	for d := data[4:n]; len(d) >= 2; d = d[2:] {
		u := binary.LittleEndian.Uint16(d)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}

// Medium names what the node booted from. disc says that the machine has a disc
// or stick with our ISO, net that the command line names a network card that was booted from.
func (l Loader) Medium(disc, net bool) string {
	switch {
	case l.Slot != 0 && l.PartUUID != "" && l.UEFI:
		return UEFIDisk
	case l.Slot != 0 && l.PartUUID != "":
		return BIOSDisk
	case net:
		return PXE
	case disc:
		return ISO
	}
	return Direct
}
