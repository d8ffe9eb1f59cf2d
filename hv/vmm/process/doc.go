// Package process is what runs inside a VM process: it builds the machine with
// its devices, keeps its consoles, serves the control socket and says why it
// ended. Its other side is package vmm, where the protocol is described.
package process
