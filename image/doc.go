// Package image builds the appliance: a Debian kernel and an initramfs made
// with u-root.
//
// The same sources, Go release and Debian packages give the same bytes: files
// are written in the order of their names with owner 0 and time 0, programs are
// built with -trimpath and without build ids, and the archive's id is a hash of
// what it contains. Two entries end the archive after all others:
// /etc/quantavirt/image.json, which carries the id, and the sentinel
// /.image-complete, which is the id. PID 1 compares the two, as a kernel that
// runs out of room for its root file system leaves files out and boots on.
package image
