package bridge

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/rtnl"
)

// aliasPrefix marks the bridges that are ours.
const aliasPrefix = "quantavirt network "

// Config is the wanted state of a bridge.
type Config struct {
	Name    string
	Network string       // name of the network, kept in the link's alias
	MAC     mac.Addr     // of the bridge itself
	Address netip.Prefix // of the bridge, with the length of the subnet; zero: none
	MTU     int          // bytes
}

// Ensure makes the bridge what cfg says and touches nothing that is already so.
// It returns the link's index and whether anything changed. Errors carry
// QV_NET_ERR_BRIDGE or QV_NET_ERR_MTU.
func Ensure(cfg Config) (index int, changed bool, err error) {
	link, err := rtnl.Link(cfg.Name)
	if err != nil {
		return 0, false, fail(cfg.Name, "look up", err)
	}
	if link == nil {
		if link, err = create(cfg); err != nil {
			return 0, false, err
		}
		changed = true
	}
	if link.Type() != "bridge" {
		return 0, false, qverr.New(qverr.NetBridge, "link %s exists and is a %s, not a bridge", cfg.Name, link.Type())
	}
	for _, step := range []func(netlink.Link, Config) (bool, error){ensureSysctls, ensureLink, ensureAddress} {
		c, err := step(link, cfg)
		if err != nil {
			return 0, false, err
		}
		changed = changed || c
	}
	return link.Attrs().Index, changed, nil
}

func create(cfg Config) (netlink.Link, error) {
	la := netlink.NewLinkAttrs()
	la.Name, la.HardwareAddr, la.MTU = cfg.Name, cfg.MAC.HW(), cfg.MTU
	// Without a querier snooping forgets groups and cuts multicast between guests.
	snooping := false
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: la, MulticastSnooping: &snooping})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fail(cfg.Name, "create", err)
	}
	link, err := rtnl.Link(cfg.Name)
	if err == nil && link == nil {
		err = errors.New("it is gone again")
	}
	if err != nil {
		return nil, fail(cfg.Name, "look up", err)
	}
	return link, nil
}

// ensureSysctls runs before the link is up: with IPv6 on, the kernel would
// announce the bridge to the guests and open a second way to the node.
func ensureSysctls(link netlink.Link, cfg Config) (changed bool, err error) {
	if err := rtnl.DisableIPv6(cfg.Name); err != nil {
		return false, fail(cfg.Name, "switch IPv6 off on", err)
	}
	for _, s := range []struct{ name, value string }{
		{"rp_filter", "1"},      // a guest cannot use a source address of elsewhere
		{"arp_ignore", "1"},     // the node's other addresses are none of the guests' business
		{"send_redirects", "0"}, // routes between networks are not to be short-cut
		{"accept_redirects", "0"},
	} {
		c, err := rtnl.Sysctl("ipv4/conf/"+cfg.Name+"/"+s.name, s.value)
		if err != nil {
			return false, fail(cfg.Name, "configure", err)
		}
		changed = changed || c
	}
	return changed, nil
}

func ensureLink(link netlink.Link, cfg Config) (changed bool, err error) {
	la := link.Attrs()
	if la.HardwareAddr.String() != cfg.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(link, cfg.MAC.HW()); err != nil {
			return false, fail(cfg.Name, "set the MAC of", err)
		}
		changed = true
	}
	if la.MTU != cfg.MTU {
		if err := netlink.LinkSetMTU(link, cfg.MTU); err != nil {
			return false, qverr.New(qverr.NetMTU, "set MTU %d on bridge %s: %w", cfg.MTU, cfg.Name, err)
		}
		changed = true
	}
	if want := aliasPrefix + cfg.Network; la.Alias != want {
		if err := netlink.LinkSetAlias(link, want); err != nil {
			return false, fail(cfg.Name, "mark", err)
		}
		changed = true
	}
	if !rtnl.IsUp(link) {
		if err := netlink.LinkSetUp(link); err != nil {
			return false, fail(cfg.Name, "set up", err)
		}
		changed = true
	}
	return changed, nil
}

func ensureAddress(link netlink.Link, cfg Config) (changed bool, err error) {
	have, err := rtnl.Addrs(link)
	if err != nil {
		return false, fail(cfg.Name, "list the addresses of", err)
	}
	found := false
	for _, a := range have {
		if rtnl.Prefix(a.IPNet) == cfg.Address {
			found = true
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return false, fail(cfg.Name, "remove an address of", err)
		}
		changed = true
	}
	if found && !changed || !cfg.Address.IsValid() {
		return changed, nil
	}
	// Removing a primary address takes its secondaries along, so this comes last.
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: rtnl.IPNet(cfg.Address)}); err != nil {
		return false, fail(cfg.Name, "set address "+cfg.Address.String()+" on", err)
	}
	return true, nil
}

// Attach makes a link a port of a bridge; nothing happens if it is one.
// Reports whether it was none before.
func Attach(port netlink.Link, bridge string) (bool, error) {
	b, err := rtnl.Link(bridge)
	if err != nil {
		return false, fail(bridge, "look up", err)
	}
	if b == nil {
		return false, qverr.New(qverr.NetBridge, "bridge %s does not exist", bridge)
	}
	if port.Attrs().MasterIndex == b.Attrs().Index {
		return false, nil
	}
	if err := netlink.LinkSetMasterByIndex(port, b.Attrs().Index); err != nil {
		return false, fail(bridge, "attach "+port.Attrs().Name+" to", err)
	}
	return true, nil
}

// Remove deletes a bridge of ours; its ports stay, without a bridge.
func Remove(name string) error {
	link, err := rtnl.Link(name)
	if err != nil {
		return fail(name, "look up", err)
	}
	if link == nil {
		return nil
	}
	if !ours(link) {
		return qverr.New(qverr.NetBridge, "link %s is not a bridge of ours", name)
	}
	if err := netlink.LinkDel(link); err != nil && !rtnl.IsNotFound(err) {
		return fail(name, "remove", err)
	}
	return nil
}

// Ours returns the names of all bridges among links that Ensure made, by
// whichever process.
func Ours(links []netlink.Link) []string {
	var out []string
	for _, l := range links {
		if ours(l) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out
}

func ours(l netlink.Link) bool {
	return l.Type() == "bridge" && strings.HasPrefix(l.Attrs().Alias, aliasPrefix)
}

func fail(name, what string, err error) error {
	return qverr.New(qverr.NetBridge, "%s bridge %s: %w", what, name, err)
}
