package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// FirmwareBIOS boots a Medium by SeaBIOS.
const FirmwareBIOS = "bios"

// Ways to attach a medium.
const (
	MediumUSB    = "usb" // a stick at an xHCI controller
	MediumCDROM  = "cdrom"
	MediumNVMe   = "nvme"
	MediumVirtio = "virtio"
	MediumSATA   = "sata"
)

// Medium is a disk or disc that the firmware boots from.
type Medium struct {
	File string
	As   string // one of MediumUSB and so on
	Keep bool   // what the node writes goes into File; otherwise it is lost with the node

	// Log is a file, made anew, that gets all writes in the order of the disk (QEMU's
	// blklogwrites; package writelog reads it). It needs Keep.
	Log string

	// FirmwareOrder leaves it to the firmware's own boot entries what boots; QEMU
	// would put the medium first.
	FirmwareOrder bool
}

// mediumDevice is how QEMU attaches each.
var mediumDevice = map[string][]string{
	MediumUSB:    {"-device", "qemu-xhci,id=usb", "-device", "usb-storage,bus=usb.0,removable=on,drive=medium,bootindex=0"},
	MediumCDROM:  {"-device", "ide-cd,bus=ide.0,drive=medium,bootindex=0"},
	MediumNVMe:   {"-device", "nvme,serial=lab-medium,drive=medium,bootindex=0"},
	MediumVirtio: {"-device", "virtio-blk-pci,serial=lab-medium,drive=medium,bootindex=0"},
	MediumSATA:   {"-device", "ide-hd,bus=ide.0,serial=lab-medium,drive=medium,bootindex=0"},
}

func (o *Options) completeMedium() error {
	if o.Medium == (Medium{}) {
		if o.Firmware == FirmwareBIOS && o.Netboot == nil {
			return errors.New("lab: SeaBIOS needs a medium or a network")
		}
		return nil
	}
	if _, ok := mediumDevice[o.Medium.As]; !ok || o.Medium.File == "" {
		return fmt.Errorf("lab: a medium %q as %q: want a file as usb, cdrom, nvme, virtio or sata", o.Medium.File, o.Medium.As)
	}
	if o.Medium.Log != "" && (!o.Medium.Keep || o.Medium.As == MediumCDROM) {
		return errors.New("lab: only what is kept is logged")
	}
	switch {
	case o.Firmware == FirmwareDirect || o.ESP != "" || o.Archive != "":
		return errors.New("lab: a medium needs a firmware, and neither ESP nor archive beside it")
	case o.Firmware == FirmwareBIOS && o.Cmdline != "":
		return errors.New("lab: nothing can be added to the kernel command line of a medium that SeaBIOS boots")
	case o.Firmware == FirmwareBIOS:
		o.FirstToken = true
	}
	return nil
}

func (l launch) mediumArgs() []string {
	m := l.opts.Medium
	if m.Log != "" {
		file := func(path string) string {
			return fmt.Sprintf(`{"driver":"raw","discard":"unmap","file":{"driver":"file","discard":"unmap","filename":%q}}`, path)
		}
		return append([]string{"-blockdev", fmt.Sprintf(
			`{"driver":"blklogwrites","node-name":"medium","discard":"unmap","log-sector-size":512,"file":%s,"log":%s}`, file(m.File), file(m.Log))},
			mediumDevice[m.As]...)
	}
	drive := "if=none,id=medium,format=raw,file=" + escape(m.File)
	switch {
	case m.As == MediumCDROM:
		drive += ",readonly=on"
	case !m.Keep:
		drive += ",snapshot=on"
	}
	device := slices.Clone(mediumDevice[m.As])
	if m.FirmwareOrder {
		last := len(device) - 1
		device[last] = strings.TrimSuffix(device[last], ",bootindex=0")
	}
	return append([]string{"-drive", drive}, device...)
}
