// Package dhcp is the DHCPv4 server of a VM network (RFC 2131, RFC 2132).
//
// It listens on one bridge only and keys leases by hardware address, not by
// client identifier: an initramfs, a boot loader and an operating system use
// different identifiers on the same card and shall get the same address.
//
// An address belongs to at most one client at a time. A lease is stored before
// it is acknowledged, so that a restart does not give it to somebody else.
// Every packet is hostile input.
package dhcp
