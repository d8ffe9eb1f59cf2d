// Package storage keeps what VMs boot from and write to: images (kernels,
// initrds, raw images) and disks, as files on the data volume or in RAM.
//
// What is uploaded goes to a temporary name, is synced, gets its record and
// only then its name: a crash or a client that goes away leaves nothing behind.
// Blocks of zeroes are not written, so that files are sparse. The length of an
// upload is known before its first byte and refused with QV_ERR_NOSPC when the
// volume cannot hold it.
//
// An open disk is locked with flock(2). The VM process holds the very open file
// that carries the lock, so it outlives the daemon and ends with the VM.
package storage
