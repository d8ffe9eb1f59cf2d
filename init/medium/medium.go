// Package medium finds out what the node booted from: the boot loader says so in
// variables of the UEFI firmware or on the kernel command line.
//
// The variables are those of the systemd Boot Loader Interface, which systemd-boot and
// the stub of unified kernel images write
// (https://systemd.io/BOOT_LOADER_INTERFACE), and the firmware's own about what it
// boots: BootCurrent and the load option that it names (UEFI specification 2.10,
// 3.3 and 3.1.3). A network boot loader gives BOOTIF=, as PXELINUX does.
package medium

import (
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strings"

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

// Loader is what the boot loader said.
type Loader struct {
	UEFI     bool
	Stub     bool   // a unified kernel image was started
	PartUUID string // of the EFI system partition, lower case; "" unknown
	Slot     uint32 // 0: none of ours
	Trial    bool   // the loader only tries it
	Disc     bool   // it lies on a disc, where Linux sees no partition
	Card     string // network card that it came over, as Linux writes its MAC address; "" none or unknown
}

var partUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Read reads the variables in dir, an efivarfs. What the command line says
// comes before them: they stay as they were when a kernel starts another. option returns
// the value of a quantavirt option, and bootif that of BOOTIF=.
func Read(dir string, uefi bool, option func(name string) (string, bool), bootif string) (Loader, error) {
	l := Loader{UEFI: uefi, Card: CardOf(bootif)}
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
	if _, l.Disc = option("disc"); l.Disc || !uefi {
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
	var err error
	if l.Card == "" {
		l.Card, err = bootedCard(dir)
		errs = append(errs, err)
	}
	image := get("StubImageIdentifier", "LoaderImageIdentifier")
	l.Stub = image != ""
	if id := strings.ToLower(get("StubDevicePartUUID", "LoaderDevicePartUUID")); partUUID.MatchString(id) {
		l.PartUUID = id
	}
	if n, ok := slot.ParseName(image[strings.LastIndexByte(image, '\\')+1:]); ok {
		l.Slot, l.Trial = n.Sequence, n.Counted
		l.Disc = l.PartUUID == ""
	}
	return l, errors.Join(errs...)
}

// DiscLabel is the volume's name of our ISO.
const DiscLabel = "QUANTAVIRT"

// IsDisc tells whether a disc is our ISO, by its primary volume descriptor
// (ECMA-119, 8.4).
func IsDisc(r io.ReaderAt) bool {
	b := make([]byte, 40+32)
	if _, err := r.ReadAt(b, 16*2048); err != nil {
		return false
	}
	return string(b[:6]) == "\x01CD001" && strings.TrimRight(string(b[40:]), " ") == DiscLabel
}

// Medium names what the node booted from.
func (l Loader) Medium() string {
	switch {
	case l.Slot != 0 && l.PartUUID != "" && l.UEFI:
		return UEFIDisk
	case l.Slot != 0 && l.PartUUID != "":
		return BIOSDisk
	case l.Card != "":
		return PXE
	case l.Disc:
		return ISO
	}
	return Direct
}
