// Package netstack makes the kernel's network what the node wants it to be:
// the uplink, a bridge with DHCP and NAT for each VM network, and a TAP device
// for each network card of a VM.
//
// The wanted State goes in through Manager.Apply; a reconcile step compares it
// with what the kernel reports and makes the difference go away. Doing it
// twice changes nothing, and a manager that starts on a configured kernel
// adopts what it finds, so running guests keep their connections over a
// restart of the daemon. Close leaves the kernel as it is.
//
// Sub-packages: uplink (DHCP client, static address), bridge, tap, dhcp
// (server), nat (translation and the rules between guests, node and world),
// mac. Errors carry QV_NET_ERR_* codes.
package netstack
