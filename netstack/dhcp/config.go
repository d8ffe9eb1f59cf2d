package dhcp

import (
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// DefaultLeaseTime is how long a guest keeps its address without renewal.
const DefaultLeaseTime = time.Hour

const (
	// offerTime is how long an offered address waits for its request.
	offerTime = 30 * time.Second
	// declineTime keeps an address back that a client found in use.
	declineTime = 10 * time.Minute
)

// Config is the wanted state of a server.
type Config struct {
	NetworkID string       // key of the leases in the store
	Bridge    string       // interface to listen on
	Subnet    netip.Prefix // address of the server with the length of the subnet
	First     netip.Addr   // with Last: the addresses to give; zero: all of the subnet
	Last      netip.Addr
	Router    bool       // the server's address is the guests' default route
	Gateway   netip.Addr // another default route than the server
	DNS       []netip.Addr
	Domain    string
	MTU       int           // bytes; 0: not told
	LeaseTime time.Duration // 0 means DefaultLeaseTime
	Fixed     []Fixed
	Names     map[mac.Addr]string // host names for guests; Fixed goes first
	Hook      Hook                // may be nil
	Boot      Boot                // what machines boot from this network
}

// Boot is what a machine that boots from the network is told; without a File, nothing.
type Boot struct {
	File   string     // name on the TFTP server, or a URL for who takes one (iPXE)
	Server netip.Addr // the TFTP server, when it is not this one
}

// maxBootFile bounds the name by the field of BOOTP with its zero (RFC 2131, figure 1).
const maxBootFile = 127

// Hook lets another service take part, such as one that boots machines. Its
// methods are called one at a time and must neither block nor call the server.
type Hook interface {
	// Admit reports whether a client is answered at all.
	Admit(req *dhcpv4.DHCPv4) bool
	// Amend may add options to an offer or an acknowledgement.
	Amend(req, resp *dhcpv4.DHCPv4)
}

// Check refuses what cannot be served. Errors carry QV_NET_ERR_DHCP.
func (c Config) Check() error {
	s := c.Subnet
	if !s.IsValid() || !s.Addr().Is4() || s.Bits() < 16 || s.Bits() > 30 {
		return qverr.New(qverr.NetDHCP, "subnet %s has no room for guests; it needs an IPv4 length of 16 to 30", s)
	}
	if err := c.checkRange(); err != nil {
		return err
	}
	if len(c.Boot.File) > maxBootFile || strings.ContainsFunc(c.Boot.File, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return qverr.New(qverr.NetDHCP, "boot file %.160q: want at most %d printable characters without spaces", c.Boot.File, maxBootFile)
	}
	if c.Boot.Server.IsValid() && (!c.Boot.Server.Is4() || c.Boot.File == "") {
		return qverr.New(qverr.NetDHCP, "boot server %s: want an IPv4 address, and the name of a boot file", c.Boot.Server)
	}
	macs, addrs := make(map[mac.Addr]bool), make(map[netip.Addr]bool)
	for _, f := range c.Fixed {
		switch {
		case f.MAC.Check() != nil:
			return qverr.New(qverr.NetDHCP, "fixed lease of %s: %w", f.Address, f.MAC.Check())
		case !c.usable(f.Address):
			return qverr.New(qverr.NetDHCP, "fixed lease %s is not an address for guests of %s", f.Address, s)
		case macs[f.MAC] || addrs[f.Address]:
			return qverr.New(qverr.NetDHCP, "fixed lease of %s for %s is there twice", f.Address, f.MAC)
		case f.Hostname != "" && !validHostname(f.Hostname):
			return qverr.New(qverr.NetDHCP, "fixed lease of %s: %q is not a host name", f.MAC, f.Hostname)
		}
		macs[f.MAC], addrs[f.Address] = true, true
	}
	return nil
}

func (c Config) checkRange() error {
	switch {
	case !c.First.IsValid() && !c.Last.IsValid():
	case !c.Subnet.Contains(c.First) || !c.Subnet.Contains(c.Last) || c.Last.Less(c.First):
		return qverr.New(qverr.NetDHCP, "addresses %s to %s are not a part of %s", c.First, c.Last, c.Subnet.Masked())
	}
	if c.Gateway.IsValid() && (c.Router || !c.Subnet.Contains(c.Gateway)) {
		return qverr.New(qverr.NetDHCP, "gateway %s: want one router, inside of %s", c.Gateway, c.Subnet.Masked())
	}
	return nil
}

func (c Config) leaseTime() time.Duration {
	if c.LeaseTime > 0 {
		return c.LeaseTime
	}
	return DefaultLeaseTime
}

// usable reports whether a guest may have the address at all.
func (c Config) usable(a netip.Addr) bool {
	return a.Is4() && c.Subnet.Contains(a) && a != c.Subnet.Addr() && a != c.Gateway &&
		a != c.Subnet.Masked().Addr() && a != c.broadcast()
}

// inRange reports whether the address is one of those that are given without
// being asked for by a fixed lease.
func (c Config) inRange(a netip.Addr) bool {
	return !c.First.IsValid() || !a.Less(c.First) && !c.Last.Less(a)
}

// first is where the search for an address that nobody had begins.
func (c Config) first() netip.Addr {
	if c.First.IsValid() {
		return c.First
	}
	return c.Subnet.Masked().Addr().Next()
}

func (c Config) broadcast() netip.Addr {
	b := c.Subnet.Masked().Addr().As4()
	for i := c.Subnet.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (c Config) fixedFor(m mac.Addr) (Fixed, bool) {
	for _, f := range c.Fixed {
		if f.MAC == m {
			return f, true
		}
	}
	return Fixed{}, false
}

// reserved is the MAC that has the address as a fixed lease.
func (c Config) reserved(a netip.Addr) (mac.Addr, bool) {
	for _, f := range c.Fixed {
		if f.Address == a {
			return f.MAC, true
		}
	}
	return mac.Addr{}, false
}

func (c Config) hostname(m mac.Addr) string {
	if f, ok := c.fixedFor(m); ok && f.Hostname != "" {
		return f.Hostname
	}
	if n := c.Names[m]; validHostname(n) {
		return n
	}
	return ""
}

// validHostname accepts one label of letters, digits and hyphens (RFC 1123).
func validHostname(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
