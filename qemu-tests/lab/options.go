package lab

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
)

// IOMMU kinds of a node.
const (
	IOMMUIntel = "intel"
	IOMMUAMD   = "amd"
	IOMMUNone  = "none"
)

// Options say what hardware an appliance gets.
type Options struct {
	Name   string // letters, digits, - and _
	CPUs   int    // default 2
	Memory int    // MiB, default 2048
	Build  string // image build: "virtual" (default) or "hardware"
	IOMMU  string // IOMMUIntel (default), IOMMUAMD (needs Build "hardware") or IOMMUNone
	Card   bool   // a QUAC 100, our model behind vfio-user
	Slot   bool   // the card is not there yet, but an empty slot: see Node.PutCard
	NoKVM  bool   // hide SVM from the appliance

	// DataDisk is the size in MiB of the disk labelled QV-DATA; 0 leaves it
	// out. A disk that is already in the node's directory is used again when
	// KeepData is set.
	DataDisk int
	KeepData bool

	// FirstToken lets the node make its own first token, as without a lab;
	// Node.Token is then read from the console.
	FirstToken bool

	Cmdline string // appended to the kernel command line

	// Firmware is one of FirmwareDirect (default), FirmwareBIOS, FirmwareUEFI
	// and FirmwareSecure. Variables is the file that the node's UEFI variables
	// begin with, by default OVMF's empty ones. KeepData keeps those of the
	// node.
	Firmware  string
	Variables string

	// ESP is a directory that the firmware boots from, as a read-only FAT
	// disk, instead of the image's kernel and initramfs. What the lab adds to
	// the kernel command line goes to systemd's stub by SMBIOS.
	ESP string

	// Medium is what the firmware boots from, instead of the image's kernel and
	// initramfs. SeaBIOS has no way to the kernel command line: the node then
	// makes its own first token.
	Medium Medium

	// TPM gives the node a TPM 2.0, which KeepData keeps too.
	TPM bool

	// Archive is a cpio archive that is unpacked before the image's own.
	Archive string

	// Outside gives the node a second network card in a network namespace of
	// its own, for peers that QEMU's user network cannot play. Needs root.
	Outside bool

	// Netboot lets the node boot from a network instead of the image.
	Netboot *Netboot

	// NoWait returns as soon as QEMU runs, for boots that never get ready.
	NoWait bool

	// Extra are further arguments for QEMU.
	Extra []string
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

func (o *Options) complete() error {
	if !validName.MatchString(o.Name) {
		return fmt.Errorf("lab: bad node name %q", o.Name)
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.Memory == 0 {
		o.Memory = 2048
	}
	if o.Build == "" {
		o.Build = "virtual"
	}
	if err := o.completeFirmware(); err != nil {
		return err
	}
	if err := o.completeMedium(); err != nil {
		return err
	}
	switch o.IOMMU {
	case "":
		o.IOMMU = IOMMUIntel
	case IOMMUIntel, IOMMUNone:
	case IOMMUAMD:
		if o.Build != "hardware" {
			return fmt.Errorf("lab: an AMD IOMMU needs the hardware build: the cloud kernel has no driver for it")
		}
	default:
		return fmt.Errorf("lab: unknown IOMMU %q: want intel, amd or none", o.IOMMU)
	}
	return nil
}

// newToken makes a token of the product's form and the hash that the kernel
// command line takes.
func newToken() (token, hash string) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	token = "qv_" + base64.RawURLEncoding.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(token))
	return token, "sha256:" + hex.EncodeToString(sum[:])
}
