package network

import (
	"net"
	"net/netip"
)

// localAddresses are those of a host whose network is not ours.
func localAddresses() []string {
	out := []string{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() {
			out = append(out, p.String())
		}
	}
	return out
}
