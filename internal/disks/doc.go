// Package disks says what disks a machine has and what is on them: partition
// tables (UEFI specification 2.10, chapter 5), signatures of file systems and
// the like, and ext superblocks in more detail. It only reads. Every byte of a
// disk is taken for hostile.
//
// It is shared by PID 1, which looks for the data volume, and the daemon, which
// lists disks and installs to them.
package disks
