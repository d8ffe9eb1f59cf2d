// Package vfio opens PCI devices for use from user space through the group
// interface of the Linux VFIO framework (Documentation/driver-api/vfio.rst,
// include/uapi/linux/vfio.h): configuration space, BARs, interrupts by eventfd
// and memory that the device reaches through the IOMMU.
//
// Debian's kernels have no iommufd, so the group and the type 1 container are
// the only way; nothing outside this package knows about either.
package vfio
