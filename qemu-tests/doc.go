// Package qemutests boots the image under QEMU and drives it as its users do:
// over the API, with the command line and on the consoles. The node of the
// spine is booted once and shared; tests that end a node boot their own.
//
// Logs of every node lie in build/lab. QV_SOAK=1 runs the full counts.
package qemutests
