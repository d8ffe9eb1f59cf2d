// Package config describes a machine as the VMM builds it: everything is
// resolved, nothing is opened by path. Descriptor names refer to the files that
// come with the configuration over the start socket.
package config

import "quantavirt/hv/limit"

// Machine is the hardware of one VM.
type Machine struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"` // one of MachineTypes, "" means the newest
	UUID   string `json:"uuid"`
	CPUs   int    `json:"cpus"` // 1 to 256
	CPU    CPU    `json:"cpu,omitzero"`
	Memory int64  `json:"memory_bytes"` // multiple of 4096, at least 16 MiB
	// MemoryFrom is where that comes from on the host.
	MemoryFrom MemoryFrom `json:"memory_from,omitzero"`

	Boot  Boot   `json:"boot"`
	Disks []Disk `json:"disks,omitempty"`
	NICs  []NIC  `json:"nics,omitempty"`
	Vsock *Vsock `json:"vsock,omitempty"`
	// Balloon takes memory back from the guest; nil leaves the device out.
	Balloon *Balloon `json:"balloon,omitempty"`
	// RNGLimit is how many bytes the guest may draw from its entropy device.
	RNGLimit limit.Rate `json:"rng_limit,omitzero"`
	// Generation is the VM generation id, a UUID; "" makes one for this start.
	Generation string `json:"generation,omitempty"`
	// Ports are the names of further ports of the virtio console: byte streams between a
	// program in the guest and one that is attached at the control socket. At most 8.
	Ports []string `json:"console_ports,omitempty"`
	// PCI are functions of the host that the VM has for itself; VFIO names the
	// descriptor of the container that they are in.
	PCI  []PCI  `json:"pci,omitempty"`
	VFIO string `json:"vfio,omitempty"`
	// ConsoleLog and SerialLog name the descriptors of the ring files of the
	// virtio console and of the serial port (package hv/vmm/ring); "" keeps that
	// console in memory only.
	ConsoleLog string `json:"console_log,omitempty"`
	SerialLog  string `json:"serial_log,omitempty"`
}

// Names of the descriptors that every VM process gets, whatever its machine.
const (
	FileKVM     = "kvm"         // /dev/kvm
	FileControl = "control"     // the listening control socket
	FileExit    = "exit-report" // where the last words go
)
