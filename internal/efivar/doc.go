// Package efivar reads and writes the variables of UEFI firmware through Linux's
// efivarfs, and keeps a boot entry there (UEFI Specification 2.10: variables in
// section 8.2, load options in 3.1.3, device paths in 10.3). u-root's pkg/efivarfs
// has neither load options to write nor a way to remove a protected variable.
package efivar
