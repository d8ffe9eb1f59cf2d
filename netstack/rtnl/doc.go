// Package rtnl is what the packages of netstack share of routing netlink:
// lists that are whole, changes of links without polling, and sysctls.
package rtnl
