package disks

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// identity is what sysfs says about a disk itself.
type identity struct {
	bus, path, model, serial, wwn string
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	ataPort    = regexp.MustCompile(`^ata[0-9]+$`)
	usbPort    = regexp.MustCompile(`^[0-9]+-([0-9.]+:[0-9]+\.[0-9]+)$`)
	scsiPlace  = regexp.MustCompile(`^[0-9]+:([0-9]+:[0-9]+:[0-9]+)$`)
	virtioName = regexp.MustCompile(`^virtio[0-9]+$`)
)

// identity walks the way from the machine to the disk. The path is that of
// udev's path_id, as far as it is known here.
func (h Host) identity(name string) identity {
	var id identity
	class := filepath.Join(h.Sys, "class/block", name)
	target, err := filepath.EvalSymlinks(class)
	if err != nil {
		return id
	}
	var pci, suffix, usb string // usb is the directory of the device
	dir := "/"
	for part := range strings.SplitSeq(strings.TrimPrefix(target, "/"), "/") {
		dir = filepath.Join(dir, part)
		switch {
		case pciAddress.MatchString(part):
			pci, suffix = part, ""
		case virtioName.MatchString(part):
			id.bus = "virtio"
		case ataPort.MatchString(part):
			id.bus = "sata"
			suffix = "-ata-" + readText(filepath.Join(dir, "ata_port", part, "port_no"))
		case usbPort.MatchString(part):
			id.bus, usb = "usb", filepath.Dir(dir)
			suffix = "-usb-0:" + usbPort.FindStringSubmatch(part)[1]
		case scsiPlace.MatchString(part) && id.bus != "sata":
			suffix += "-scsi-0:" + scsiPlace.FindStringSubmatch(part)[1]
		}
	}
	switch {
	case strings.HasPrefix(name, "nvme"):
		id.bus, suffix = "nvme", "-nvme-"+h.text(name, "nsid")
	case strings.HasPrefix(name, "mmcblk"):
		id.bus = "mmc"
	case id.bus == "" && strings.HasPrefix(name, "sd"):
		id.bus = "scsi"
	case id.bus == "":
		id.bus = "other"
	}
	if pci != "" {
		id.path = "pci-" + pci + suffix
	}
	id.model = strings.TrimSpace(h.text(name, "device/vendor") + " " + h.text(name, "device/model"))
	if id.bus == "virtio" && !strings.HasPrefix(name, "sd") { // vendor is the number of the virtio device
		id.model = ""
	}
	if id.bus == "mmc" {
		id.model = h.text(name, "device/name")
	}
	id.serial = h.serial(name, usb)
	id.wwn = firstOf(h.text(name, "wwid"), h.text(name, "device/wwid"))
	return id
}

// serial is where each bus has it: NVMe and MMC at the device, virtio at the
// disk, SCSI and SATA in the unit serial number page (SPC-4, 7.8.15), USB
// sticks that have no such page at the USB device.
func (h Host) serial(name, usb string) string {
	page := ""
	if raw, err := os.ReadFile(filepath.Join(h.Sys, "class/block", name, "device/vpd_pg80")); err == nil && len(raw) > 4 {
		page = strings.TrimSpace(printable(raw[4:]))
	}
	stick := ""
	if usb != "" {
		stick = readText(filepath.Join(usb, "serial"))
	}
	return firstOf(h.text(name, "device/serial"), h.text(name, "serial"), page, stick)
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
