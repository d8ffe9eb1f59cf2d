// Package mac holds Ethernet addresses of virtual network cards: a comparable
// type, its text form, what makes an address usable for a guest, and the
// deterministic choice of one.
package mac
