package netstack

import (
	"math"
	"net"

	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

// Kernel is the network as the kernel has it, whoever made it so.
type Kernel struct {
	Links      []Link     `json:"links"`
	Routes     []Route    `json:"routes"`     // of all tables, IPv4 and IPv6
	Neighbours []Neighbor `json:"neighbours"` // IPv4 and IPv6
}

// Link is a network device.
type Link struct {
	Name      string          `json:"name"`
	Index     int             `json:"index"`
	Kind      string          `json:"kind"` // device, bridge, tuntap, …
	MAC       string          `json:"mac,omitempty"`
	MTU       int             `json:"mtu"`              // bytes
	Flags     string          `json:"flags"`            // up|broadcast|…
	State     string          `json:"state"`            // up, down, unknown, …
	Master    int             `json:"master,omitempty"` // index of its bridge
	Alias     string          `json:"alias,omitempty"`
	Addresses []LinkAddress   `json:"addresses"`
	Counters  *LinkStatistics `json:"counters,omitempty"`
}

// LinkAddress is an address of a link.
type LinkAddress struct {
	Address      string `json:"address"`                 // with its length
	ValidSeconds int    `json:"valid_seconds,omitempty"` // 0: for ever
}

// LinkStatistics is what a link has counted.
type LinkStatistics struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDropped uint64 `json:"rx_dropped"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDropped uint64 `json:"tx_dropped"`
}

// Route is a route.
type Route struct {
	Destination string `json:"destination"` // "default" for all
	Gateway     string `json:"gateway,omitempty"`
	Source      string `json:"source,omitempty"`
	Link        int    `json:"link,omitempty"` // index
	Metric      int    `json:"metric,omitempty"`
	Protocol    string `json:"protocol"`
	Table       int    `json:"table"`
}

// Neighbor is who was seen on a link.
type Neighbor struct {
	Address string `json:"address"`
	MAC     string `json:"mac,omitempty"`
	Link    int    `json:"link"` // index
	State   int    `json:"state"`
}

// Inspect asks the kernel. Errors carry QV_NET_ERR_BRIDGE.
func Inspect() (Kernel, error) {
	fail := func(what string, err error) (Kernel, error) {
		return Kernel{}, qverr.New(qverr.NetBridge, "list %s: %w", what, err)
	}
	out := Kernel{Links: []Link{}, Routes: []Route{}, Neighbours: []Neighbor{}}
	links, err := rtnl.Links()
	if err != nil {
		return fail("links", err)
	}
	addresses, err := rtnl.Retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fail("addresses", err)
	}
	for _, l := range links {
		out.Links = append(out.Links, linkOf(l, addresses))
	}
	all := &netlink.Route{Table: 0} // with the filter on tables: all of them
	routes, err := rtnl.Retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, all, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fail("routes", err)
	}
	for _, r := range routes {
		out.Routes = append(out.Routes, routeOf(r))
	}
	neighbours, err := rtnl.Retry(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fail("neighbours", err)
	}
	for _, n := range neighbours {
		out.Neighbours = append(out.Neighbours, Neighbor{Address: text(n.IP), MAC: n.HardwareAddr.String(), Link: n.LinkIndex, State: n.State})
	}
	return out, nil
}

func linkOf(l netlink.Link, addresses []netlink.Addr) Link {
	a := l.Attrs()
	out := Link{
		Name: a.Name, Index: a.Index, Kind: l.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU, Flags: a.Flags.String(),
		State: a.OperState.String(), Master: a.MasterIndex, Alias: a.Alias, Addresses: []LinkAddress{},
	}
	for _, x := range addresses {
		if x.LinkIndex != a.Index || x.IPNet == nil {
			continue
		}
		one := LinkAddress{Address: x.IPNet.String()}
		if x.ValidLft > 0 && x.ValidLft != math.MaxUint32 {
			one.ValidSeconds = x.ValidLft
		}
		out.Addresses = append(out.Addresses, one)
	}
	if c := a.Statistics; c != nil {
		out.Counters = &LinkStatistics{
			RxPackets: c.RxPackets, RxBytes: c.RxBytes, RxErrors: c.RxErrors, RxDropped: c.RxDropped,
			TxPackets: c.TxPackets, TxBytes: c.TxBytes, TxErrors: c.TxErrors, TxDropped: c.TxDropped,
		}
	}
	return out
}

func routeOf(r netlink.Route) Route {
	out := Route{Destination: "default", Gateway: text(r.Gw), Source: text(r.Src), Link: r.LinkIndex, Metric: r.Priority,
		Protocol: r.Protocol.String(), Table: r.Table}
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 || !r.Dst.IP.IsUnspecified() {
			out.Destination = r.Dst.String()
		}
	}
	return out
}

func text(ip net.IP) string {
	if ip == nil {
		return ""
	}
	return ip.String()
}
