// Package media makes what a machine boots from out of a built image: a disk
// for USB sticks, an ISO for optical drives, virtual ones above all, and the
// files for network boot.
//
// The disk is laid out by package disklayout, as installed disks are: the same
// bytes boot through systemd-boot on UEFI and through GRUB on BIOS.
//
// Equal inputs give equal bytes: identifiers are derived from the unified
// kernel image, and the time in all files is an input.
package media
