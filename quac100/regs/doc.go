// Package regs is the QUAC 100 as its driver and its model see it: PCI identity, the register map of BAR0, bits,
// opcodes, response codes and the codecs of everything that travels through memory (commands, responses,
// scatter-gather lists, key attributes, records).
//
// It holds facts only and no behaviour. The public part of the interface (identity, regions, response codes) is the
// maker's; the rest is our own design, version 1. Should the maker publish the register page, only this package changes.
//
// All multi-byte integers are little-endian. Decoders take bytes of the other side, check their length and nothing else:
// what a value means is judged where it is used.
package regs
