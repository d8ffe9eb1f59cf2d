package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

// Route protocols of rtnetlink: who made a route.
const (
	protoStatic = 4
	protoDHCP   = 16
)

// netConfig is what the interface shall have.
type netConfig struct {
	address netip.Prefix
	gateway netip.Addr // invalid: no default route
	routes  []route    // besides the default route
	dns     []netip.Addr
	mtu     int // 0: leave alone
}

type route struct {
	dst netip.Prefix
	gw  netip.Addr // invalid: on the link
}

// configure makes an interface what c says. valid is how long the kernel keeps
// the address if nobody renews it, 0 for ever; so an address does not outlive
// its lease even when the daemon is dead. What is right already is not touched.
func configure(link netlink.Link, c netConfig, valid time.Duration, proto int) error {
	name := link.Attrs().Name
	for _, sysctl := range []string{
		"promote_secondaries", // removing an old address keeps a new one of the same subnet
		"arp_ignore",          // the addresses of VM networks are not announced outside
	} {
		if _, err := rtnl.Sysctl("ipv4/conf/"+name+"/"+sysctl, "1"); err != nil {
			return qverr.New(qverr.NetCreate, "configure %s: %w", name, err)
		}
	}
	addr := &netlink.Addr{IPNet: rtnl.IPNet(c.address)}
	if valid > 0 {
		addr.ValidLft = int(math.Ceil(valid.Seconds()))
		addr.PreferedLft = addr.ValidLft
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return qverr.New(qverr.NetCreate, "set address %s on %s: %w", c.address, name, err)
	}
	if err := removeAddrs(link, c.address); err != nil {
		return err
	}
	return setRoutes(link, c, proto)
}

// removeAddrs removes all IPv4 addresses but keep.
func removeAddrs(link netlink.Link, keep netip.Prefix) error {
	name := link.Attrs().Name
	have, err := rtnl.Addrs(link)
	if err != nil {
		return qverr.New(qverr.NetCreate, "list the addresses of %s: %w", name, err)
	}
	for _, a := range have {
		if rtnl.Prefix(a.IPNet) == keep {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return qverr.New(qverr.NetCreate, "remove address %s from %s: %w", a.IPNet, name, err)
		}
	}
	return nil
}

func setRoutes(link netlink.Link, c netConfig, proto int) error {
	name := link.Attrs().Name
	want := slices.Clone(c.routes)
	if c.gateway.IsValid() {
		want = append(want, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.gateway})
	}
	for _, w := range want {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: rtnl.IPNet(w.dst), Protocol: netlink.RouteProtocol(proto)}
		if w.gw.IsValid() {
			r.Gw = w.gw.AsSlice()
			if !c.address.Contains(w.gw) {
				r.Flags = int(netlink.FLAG_ONLINK)
			}
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(r); err != nil {
			return qverr.New(qverr.NetCreate, "set route to %s through %s: %w", w.dst, name, err)
		}
	}
	have, err := rtnl.Routes(link)
	if err != nil {
		return qverr.New(qverr.NetCreate, "list the routes of %s: %w", name, err)
	}
	for _, h := range have {
		if h.Protocol != protoDHCP && h.Protocol != protoStatic {
			continue
		}
		if !slices.Contains(want, route{rtnl.Prefix(h.Dst), toAddr(h.Gw)}) {
			if err := netlink.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
				return qverr.New(qverr.NetCreate, "remove route to %s from %s: %w", h.Dst, name, err)
			}
		}
	}
	return nil
}

// deconfigure takes everything back; a link that is gone needs nothing.
func deconfigure(link netlink.Link) error {
	err := removeAddrs(link, netip.Prefix{}) // routes go with the last address
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// setMTU reports what the interface refuses; it goes on with the MTU it has.
func setMTU(link netlink.Link, mtu int) error {
	if mtu == 0 || link.Attrs().MTU == mtu {
		return nil
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return qverr.New(qverr.NetMTU, "set MTU %d on %s: %w", mtu, link.Attrs().Name, err)
	}
	return nil
}

const resolvHeader = "# written by quantavirt from the uplink's configuration\n"

// KnownDNS reads the name servers that an earlier run wrote; none if it did not.
func KnownDNS(path string) []netip.Addr {
	b, err := os.ReadFile(path)
	if path == "" || err != nil || !bytes.HasPrefix(b, []byte(resolvHeader)) {
		return nil
	}
	var out []netip.Addr
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "nameserver "); ok {
			if a, err := netip.ParseAddr(s); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// KnownInterface is the interface that cfg names, else the one that has the
// default route, as an earlier run left it; empty if there is none.
func KnownInterface(cfg Config) string {
	if cfg.Mode == Off {
		return ""
	}
	links, err := rtnl.Links()
	if err != nil {
		return ""
	}
	for _, l := range candidates(links, cfg.Interface) {
		if cfg.Interface != "" {
			return l.Attrs().Name
		}
		routes, err := rtnl.Routes(l)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if p := rtnl.Prefix(r.Dst); !p.IsValid() || p.Bits() == 0 {
				return l.Attrs().Name
			}
		}
	}
	return ""
}

// writeResolvConf writes the name servers unless they stand there already.
func writeResolvConf(path string, dns []netip.Addr) error {
	if path == "" {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(resolvHeader)
	for _, d := range dns[:min(3, len(dns))] { // resolvers use three
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	}
	return writeFile(path, b.Bytes(), 0o644)
}
