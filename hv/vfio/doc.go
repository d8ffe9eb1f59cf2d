// Package vfio gives a guest PCI functions of the machine, through the Linux VFIO
// framework (Documentation/driver-api/vfio.rst). A function shows on the guest's bus
// with its own identity, memory BARs and interrupts:
//
//   - Configuration space is made here. The guest's writes reach the hardware in two
//     places only: the bus master and interrupt disable bits of the command register,
//     and function level reset, which becomes VFIO_DEVICE_RESET.
//   - BARs are memory of the guest, without exits, but for the pages that hold the MSI-X
//     table or pending bits: those are emulated, and what else lies in them goes
//     through a system call.
//   - Interrupts (MSI-X and MSI) go from VFIO's eventfd straight into KVM.
//   - All RAM of the guest is pinned and mapped for DMA at its guest address, and
//     nothing else is: what the guest has the function do elsewhere the IOMMU stops.
//
// Left out, and read as zero: I/O BARs, the expansion ROM, INTx, extended configuration
// space, and capabilities other than power management, PCI Express, MSI, MSI-X,
// advanced features and vendor-specific ones (which are read-only).
//
// The process opens nothing by path: container and devices come from the outside
// (quantavirt/internal/vfio.Assign).
package vfio
