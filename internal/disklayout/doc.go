// Package disklayout decides what a disk of the product looks like and writes
// it: partition table, boot code for BIOS, and the EFI system partition with
// boot loaders and slots. Media are made with it on the build machine and disks
// at installation.
//
// The disk has a GPT (UEFI specification 2.10, chapter 5) with, in order,
// QV-BIOS (GRUB's core image), QV-ESP (FAT32) and, where the product is
// installed, QV-DATA. UEFI starts systemd-boot from the ESP, which picks a slot
// EFI/Linux/qv-NNNNNNNN.efi; BIOS starts GRUB from the first sector, which
// takes kernel, initramfs and command line from qv/NNNNNNNN.
//
// Errors are QV_ERR_INVAL for what cannot be, QV_ERR_NOSPC for what does not fit,
// and else those of the target.
//
// All identifiers and times are inputs: equal inputs give equal bytes.
package disklayout
