// Package machine is one virtual machine: vCPUs, memory map, the devices on
// ports, ACPI, the PCI bus and the way a Linux kernel is started.
//
// New builds the machine from descriptors; the caller adds PCI devices to Bus
// and calls Start. From then on the machine is driven by Pause, Resume, Reset,
// PowerButton and Quit, and by the guest. It ends once, and Wait tells why.
//
// A reset happens in place: the vCPUs end, all RAM is given back, the kernel's
// VM object is replaced by a new one over the same memory, the devices are
// reset, and the kernel is loaded again from its descriptor.
package machine
