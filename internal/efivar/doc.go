// Package efivar reads and writes the variables of UEFI firmware through Linux's
// efivarfs, and keeps a boot entry there (UEFI Specification 2.10: variables in
// section 8.2, load options in 3.1.3, device paths in 10.3).
package efivar
