// Package install puts the running product on a disk: GPT, boot loaders for
// UEFI and BIOS, an EFI system partition with the system in slot 1, and the
// data volume (package internal/disklayout decides where all that lies).
//
// A disk that holds anything is only taken if it is named by its serial number,
// and one that is in use never. What was written is read back from the disk and
// compared before the installation counts as done.
package install
