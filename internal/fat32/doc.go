// Package fat32 makes a FAT32 file system together with the files that lie in
// it, for the EFI system partition of media and of installed disks.
//
// The content is known beforehand, so one pass suffices: every file and
// directory is one run of clusters, in the order given, and begins at a
// multiple of 2048 bytes from the volume's start, so that an ISO 9660 directory
// can point to the same data. Serial number, times and label are inputs: equal
// inputs give equal bytes. What is not used is not written; the target need not
// be blank.
//
// A request that cannot be met is QV_ERR_INVAL, one that does not fit
// QV_ERR_NOSPC; errors of files and target keep their code.
//
// It follows the Microsoft FAT Specification of August 2005 (the section is
// named where a number comes from it). Reading and changing an existing file
// system is the kernel's business, repairing one that of dosfstools.
package fat32
