// Package bench measures what SPECIFICATION.md promises: the size of the image,
// the boot, the memory in use, and the virtual machine monitor. Each figure that
// depends on the machine is a ratio against a peer measured in the same run: a
// bare busybox init that carries an archive of the same size, and QEMU's
// microvm and q35 in the same appliance kernel, with the same guests.
package bench
