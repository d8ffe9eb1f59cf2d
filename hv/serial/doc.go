// Package serial emulates a 16550A UART as far as firmware, boot loaders and
// operating systems use one for a console: the registers, both FIFOs, loopback
// and interrupts (PC16550D data sheet, National Semiconductor, 1995).
//
// A guest's output never waits: the transmitter is always empty, and what the
// writer does not take is lost. Baud rate and line format are kept but mean
// nothing.
package serial
