// Package nstest runs tests of netstack and its users in network namespaces of their own:
// real kernel, real netlink and nftables, nothing of the machine touched, and
// nothing left behind when a test is killed.
package nstest
