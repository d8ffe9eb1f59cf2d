package netstack

import (
	"net/netip"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/nat"
	"quantavirt/netstack/tap"
	"quantavirt/netstack/uplink"
)

// defaultMTU is that of Ethernet.
const defaultMTU = 1500

// maxIfname is the longest interface name (IFNAMSIZ without its NUL).
const maxIfname = 15

// normal fills in what may be left out.
func normal(s State) State {
	if s.Uplink.Mode == "" {
		s.Uplink.Mode = uplink.DHCP
	}
	nets := make([]Network, len(s.Networks))
	for i, n := range s.Networks {
		if n.Bridge == "" {
			n.Bridge = BridgeName(n.ID)
		}
		if n.MTU == 0 {
			n.MTU = defaultMTU
		}
		nets[i] = n
	}
	s.Networks = nets
	return s
}

// Check refuses a state that is wrong in itself, as Apply would.
func (s State) Check() error { return check(normal(s)) }

// check refuses a normal state that is wrong in itself.
func check(s State) error {
	if err := s.Uplink.Check(); err != nil {
		return err
	}
	seen := make(map[string]string)
	for i, n := range s.Networks {
		if err := checkNetwork(n); err != nil {
			return err
		}
		for _, key := range []string{"name " + n.Name, "id " + n.ID, "bridge " + n.Bridge} {
			if other, ok := seen[key]; ok {
				return qverr.New(qverr.NetCreate, "networks %s and %s have the same %s", other, n.Name, key)
			}
			seen[key] = n.Name
		}
		for _, o := range s.Networks[:i] {
			if o.Subnet.Overlaps(n.Subnet) {
				return qverr.New(qverr.NetCreate, "subnet %s of network %s overlaps %s of network %s",
					n.Subnet.Masked(), n.Name, o.Subnet.Masked(), o.Name)
			}
		}
	}
	return nil
}

func checkNetwork(n Network) error {
	if n.Name == "" || n.ID == "" {
		return qverr.New(qverr.NetCreate, "network %q with id %q needs both", n.Name, n.ID)
	}
	if !strings.HasPrefix(n.Bridge, nat.BridgePrefix) || len(n.Bridge) > maxIfname || strings.ContainsAny(n.Bridge, "/ \t\n") {
		return qverr.New(qverr.NetCreate, "bridge name %q of network %s does not begin with %s or is no interface name",
			n.Bridge, n.Name, nat.BridgePrefix)
	}
	if err := uplink.CheckHost(n.Subnet); err != nil {
		return qverr.New(qverr.NetCreate, "subnet of network %s: %w", n.Name, err)
	}
	if err := dhcpConfig(n, nil, nil).Check(); err != nil {
		return qverr.New(qverr.NetCreate, "network %s: %w", n.Name, err)
	}
	if n.Boot != nil {
		if err := n.Boot.check(n); err != nil {
			return err
		}
	}
	if err := tap.CheckMTU(n.MTU); err != nil {
		return err
	}
	for _, d := range n.DNS {
		if !d.Is4() {
			return qverr.New(qverr.NetCreate, "name server %s of network %s is not an IPv4 address", d, n.Name)
		}
	}
	return nil
}

// dhcpConfig is the server of a network. The network's own name servers go
// before those of the uplink.
func dhcpConfig(n Network, uplinkDNS []netip.Addr, names map[MAC]string) dhcp.Config {
	dns := n.DNS
	if len(dns) == 0 {
		dns = uplinkDNS
	}
	return dhcp.Config{NetworkID: n.ID, Bridge: n.Bridge, Subnet: n.Subnet, Router: n.NAT, DNS: dns,
		Domain: n.Domain, MTU: n.MTU, Fixed: n.Fixed, Names: names, Boot: n.Boot.dhcp()}
}
