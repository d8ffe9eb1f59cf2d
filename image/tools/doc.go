// Package tools provides what the build and the tests take from Debian: QEMU
// with its firmware, kernels with their modules, file system tools and CA
// certificates, all from one root of unpacked packages.
//
// The root is made by mmdebstrap from Debian 13 and its backports (QEMU has
// vfio-user only there), needs no root rights, and is kept in
// $XDG_CACHE_HOME/quantavirt (~/.cache/quantavirt), under a name that depends
// on the list of packages. It appears there by a rename once it is complete, so
// that an interrupted run leaves nothing that could be taken for it. Its
// programs run on any Debian 12 or 13: they are started with their own dynamic
// loader and libraries.
package tools
