// Package uplink configures the interface through which the node reaches the
// world: by DHCPv4 (RFC 2131 as a client, RFC 3442 routes) or statically.
//
// The interface is the one named, else the card that the node was booted from,
// else the first physical Ethernet with a
// carrier. A restart adopts what is configured: while a lease is valid its
// address is neither removed nor set anew.
package uplink
