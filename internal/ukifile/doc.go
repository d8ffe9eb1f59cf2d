// Package ukifile reads unified kernel images: EFI programs whose sections
// carry a kernel, its initial file systems and its command line (UAPI Group
// Specification 5, "Unified Kernel Image"). Package image/uki writes them.
//
// It also computes the value that systemd's stub leaves in PCR 11 of a TPM, as
// that depends on nothing but the sections.
//
// A file may be hostile: no memory is taken for what it claims, and what breaks
// the layout is qverr.Inval. Images of several profiles are refused: which one
// boots is chosen at boot.
package ukifile
