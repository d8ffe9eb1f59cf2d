// Package hostpci gives PCI functions of the node to virtual machines: it knows them
// and their IOMMU groups (Documentation/ABI/testing/sysfs-bus-pci), takes a function from
// its driver while a VM has it, and gives it back afterwards. A QUAC 100 is taken from
// the node's own cryptography, which goes on in software.
//
// A group is given as a whole: its functions can reach each other's memory behind the
// IOMMU's back.
package hostpci
