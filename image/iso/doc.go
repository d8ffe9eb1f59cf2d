// Package iso writes an ISO 9660 file system with El Torito boot entries into
// the gap before the first partition of a disk, for files that lie on the disk
// already: one image is a disk with partitions and an optical disc.
//
// The first 32 KiB, which ISO 9660 leaves to the system, hold the partition
// table; the descriptors, directories and the boot image for BIOS follow, and
// must end before the first partition at 1 MiB.
//
// It follows ECMA-119 (the section is named where a number comes from it), El
// Torito 1.0, and for names RRIP 1.12 (Rock Ridge) with PX and NM entries.
// go-diskfs 1.9.4 and xorriso both copy the files that they describe, which
// would put everything on the medium twice.
package iso
