// Package acpi makes the firmware tables of a machine (ACPI 6.5): RSDP, XSDT,
// FADT, FACS, MADT, MCFG and a DSDT whose AML is encoded here, without a
// compiler. The same machine always gets the same bytes.
package acpi
