// Package demo is what make run and make demo show: an appliance under QEMU
// with a card, and a Debian virtual machine in it that gets an address, reads a
// page from outside, asks its host over vsock and powers off. Everything goes
// through the quantavirt command, as a user would do it.
package demo
