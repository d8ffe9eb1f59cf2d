// Package memory is the guest's physical memory: one sealed memfd mapped into
// this process, shared with KVM, vhost and VFIO.
//
// Nothing is touched before the guest or a device touches it, so a VM costs
// what it uses. RAM lies from 0 up to the 32-bit MMIO gap and goes on at 4 GiB.
//
// The guest writes this memory while we read it. Whoever parses guest data
// copies it once, checks the copy and uses only the copy.
package memory
