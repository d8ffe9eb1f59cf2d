// Package pci emulates one PCI root bus: configuration space over CF8/CFC and
// ECAM, memory BARs that the guest may move, capabilities, MSI and MSI-X.
//
// A device model makes a Device, adds its BARs, capabilities and MSI-X, and
// hands it to Bus.Add. Interrupts leave through an eventfd for each vector,
// which the Host ties to the guest's interrupt controller while the vector is
// deliverable, so vhost and VFIO use the very same path as our own devices.
//
// It follows PCI Local Bus 3.0 (sections 6.1 to 6.8) and the PCI Express Base
// Specification for ECAM. There is no legacy interrupt, I/O BAR or expansion
// ROM; those registers read as zero and ignore writes.
package pci
