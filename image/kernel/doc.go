// Package kernel reads Debian's kernel packages: the boot image, the modules
// and what modules.dep and modules.alias (both written by depmod) say about them.
//
// Module names are compared as the kernel does: "-" and "_" are the same.
package kernel
