// Package config describes a machine as the VMM builds it: everything is
// resolved, nothing is opened by path. Descriptor names refer to the files that
// come with the configuration over the start socket.
package config

// MachineType names what a guest finds where: memory map, ACPI tables, slots of the PCI bus.
// It changes when those do.
const MachineType = "quantavirt-1"

// Machine is the hardware of one VM.
type Machine struct {
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	CPUs   int    `json:"cpus"`         // 1 to 8
	Memory int64  `json:"memory_bytes"` // multiple of 4096, at least 16 MiB
	Boot   Boot   `json:"boot"`
	Disks  []Disk `json:"disks,omitempty"`
	NICs   []NIC  `json:"nics,omitempty"`
	Vsock  *Vsock `json:"vsock,omitempty"`
	// Balloon takes memory back from the guest; nil leaves the device out.
	Balloon *Balloon `json:"balloon,omitempty"`
	// Ports are the names of further ports of the virtio console: byte streams between a
	// program in the guest and one that is attached at the control socket. At most 8.
	Ports []string `json:"console_ports,omitempty"`
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

// Boot is a Linux kernel started directly.
type Boot struct {
	Kernel string `json:"kernel"` // descriptor name
	// Unpacked is the descriptor name of the unpacked form of a bzImage
	// (machine.Unpack); "" has the guest unpack it.
	Unpacked string `json:"unpacked,omitempty"`
	Initrd   string `json:"initrd,omitempty"` // descriptor name, "" for none
	Cmdline  string `json:"cmdline"`
}

// Disk is one virtio-blk device.
type Disk struct {
	ID       string `json:"id"`
	File     string `json:"file"`   // descriptor name
	Format   string `json:"format"` // "raw"
	ReadOnly bool   `json:"readonly,omitempty"`
	Serial   string `json:"serial,omitempty"` // at most 20 bytes
	Queues   int    `json:"queues,omitempty"` // 1 to 64, 0 means 1
	Cache    string `json:"cache,omitempty"`  // none, writeback (default), writethrough
	Discard  bool   `json:"discard,omitempty"`
}
