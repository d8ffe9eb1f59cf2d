package config

import (
	"slices"
	"strings"
)

// Boot is how the guest starts: a Linux kernel directly, or firmware that finds
// what to boot on the disks or the network.
type Boot struct {
	Kernel string `json:"kernel,omitempty"` // descriptor name, "" with firmware
	// Unpacked is the descriptor name of the unpacked form of a bzImage
	// (machine.Unpack); "" has the guest unpack it.
	Unpacked string `json:"unpacked,omitempty"`
	Initrd   string `json:"initrd,omitempty"` // descriptor name, "" for none
	Cmdline  string `json:"cmdline,omitempty"`

	// Firmware is the descriptor name of SeaBIOS (bios-256k.bin).
	Firmware string `json:"firmware,omitempty"`
	// NetROM is the descriptor name of the option ROM of virtio-net devices, which
	// is needed to boot from one; "" for none.
	NetROM string `json:"net_rom,omitempty"`
	// Order has the ids of the disks and network devices that the firmware tries,
	// in this order; nothing else is tried.
	Order []string `json:"order,omitempty"`
}

func (m *Machine) validateBoot() error {
	b := &m.Boot
	switch {
	case b.Kernel == "" && b.Firmware == "":
		return bad("boot.kernel", "neither a kernel nor firmware is named")
	case b.Kernel != "" && b.Firmware != "":
		return bad("boot.firmware", "a kernel is started directly or by firmware, not both")
	case b.Firmware != "" && (b.Unpacked != "" || b.Initrd != "" || b.Cmdline != ""):
		return bad("boot.firmware", "initrd and command line belong to a kernel that is started directly")
	case b.Firmware == "" && (b.NetROM != "" || len(b.Order) > 0):
		return bad("boot.order", "a kernel that is started directly has no boot order")
	}
	if len(b.Cmdline) > MaxCmdline || strings.ContainsRune(b.Cmdline, 0) {
		return bad("boot.cmdline", "the kernel command line has %d bytes, or a zero byte; %d are possible",
			len(b.Cmdline), MaxCmdline)
	}
	for i, id := range b.Order {
		disk := slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.ID == id })
		nic := slices.ContainsFunc(m.NICs, func(n NIC) bool { return n.ID == id })
		switch {
		case !disk && !nic:
			return bad("boot.order", "there is no disk or network device %q to boot from", id)
		case disk && nic:
			return bad("boot.order", "%q is a disk and a network device", id)
		case slices.Contains(b.Order[:i], id):
			return bad("boot.order", "%q stands twice", id)
		}
	}
	return nil
}

// files lists the descriptors of the boot.
func (b *Boot) files() []string {
	return []string{b.Kernel, b.Unpacked, b.Initrd, b.Firmware, b.NetROM}
}
