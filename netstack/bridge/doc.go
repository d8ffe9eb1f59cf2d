// Package bridge makes the Linux bridge of a VM network: its own fixed MAC, one
// IPv4 address, no IPv6, no spanning tree.
package bridge
