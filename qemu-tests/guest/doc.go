// Package guest builds the virtual machines that tests and the demonstration
// run inside an appliance: a small one, whose init is the agent of this
// package and which is up in seconds, and a Debian root file system with
// Debian's own kernel and initrd.
package guest
