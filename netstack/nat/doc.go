// Package nat keeps the nftables table `quantavirt` (family inet): what guests
// may say to the node and to each other, and the translation of their
// addresses on the uplink.
//
//   - From a VM bridge the node takes DHCP, DNS and ICMP echo, the latter two
//     only for the bridge's own address, and IPv4 only. Everything else is
//     dropped, whichever of the node's addresses it is for. A bridge whose
//     network is not configured yet is closed: the rule matches qvb*.
//   - Forwarded is what belongs to a connection that was allowed, what stays on
//     one bridge, and what a guest of a NAT network with an address of its
//     subnet sends out of the uplink. Nothing else, so networks are isolated
//     and nothing comes in from the uplink.
//   - What leaves through the uplink is masqueraded.
//
// The table is replaced in one transaction and only if it differs from what
// the kernel has, so connections go on while it is applied again.
package nat
