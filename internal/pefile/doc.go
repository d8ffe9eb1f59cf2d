// Package pefile reads the layout of PE32+ images for x86-64: EFI programs,
// the kernel and unified kernel images.
//
// It follows the PE/COFF specification of Microsoft ("PE Format") and is
// stricter than it: sections stand in the same order in memory and in the file
// and never overlap, and a certificate table ends the file. Every offset and
// size is checked against the file before it is used, and no memory is taken
// for what a header claims, so the file may come from anywhere. debug/pe of the
// standard library promises neither.
package pefile
