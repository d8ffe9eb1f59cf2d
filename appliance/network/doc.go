// Package network is the node's network as the API shows it: the uplink, the
// VM networks with their leases, and the ports that running VMs have on them.
// The work is done by package netstack; leases are kept in the store.
package network
