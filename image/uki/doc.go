// Package uki writes unified kernel images: systemd's EFI stub with a kernel,
// its initial file systems and its command line as further sections (UAPI Group
// Specification 5). Package internal/ukifile reads them.
//
// The same parts give the same bytes: no time stamp, no checksum, no padding but
// zeros. The stub's code is not touched; its headers are rewritten with the
// structures of debug/pe, and its own .sbat section gets our line.
package uki
