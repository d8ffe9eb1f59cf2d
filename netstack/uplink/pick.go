package uplink

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/rtnl"
)

// pick waits for an interface with a carrier. avoid is the index of one that
// did not work and comes last; 0 for none.
func (u *Uplink) pick(ctx context.Context, w *rtnl.Watcher, avoid int) (netlink.Link, error) {
	last := 0 // preferred for a while after its carrier was lost
	if u.link != nil && avoid == 0 {
		last = u.link.Attrs().Index
	}
	// At first that is the card that the node was booted from: it has a cable to
	// where the node belongs, though another may be the first to have a carrier.
	var booted mac.Addr
	if u.link == nil && avoid == 0 && u.cfg.Interface == "" {
		booted = u.opts.BootCard
	}
	grace := time.NewTimer(u.time.grace)
	defer grace.Stop()
	failover := time.NewTimer(u.time.failover)
	defer failover.Stop()
	for {
		links, changed, err := w.Links()
		if err != nil {
			return nil, err
		}
		cands := candidates(links, u.cfg.Interface)
		if l := awaited(cands, booted, last, avoid); l != nil {
			return l, nil
		}
		u.raise(cands)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		case <-failover.C:
			last, booted = 0, mac.Addr{}
		case <-grace.C:
			if booted.IsZero() {
				u.problem(nil, u.missing(cands))
			} else { // first the others
				booted = mac.Addr{}
				grace.Reset(0)
			}
		}
	}
}

// raise sets links up: before that they have no carrier to look for.
func (u *Uplink) raise(links []netlink.Link) {
	for _, l := range links {
		if rtnl.IsUp(l) {
			continue
		}
		if err := netlink.LinkSetUp(l); err != nil && !rtnl.IsNotFound(err) {
			u.log.Error("interface not up", "interface", l.Attrs().Name,
				"err", qverr.New(qverr.NetCreate, "set %s up: %w", l.Attrs().Name, err))
		}
	}
}

// missing says what pick waits for.
func (u *Uplink) missing(cands []netlink.Link) *qverr.Error {
	switch {
	case len(cands) > 0:
		return qverr.New(qverr.NoDev, "no carrier on %s", names(cands)).
			WithHint("check the cable and the port of the switch")
	case u.cfg.Interface != "":
		return qverr.New(qverr.NoDev, "there is no interface %s for the uplink", u.cfg.Interface)
	default:
		return qverr.New(qverr.NoDev, "there is no Ethernet interface for the uplink").
			WithHint("check that the driver of the network card is in the image")
	}
}

func names(links []netlink.Link) string {
	s := ""
	for i, l := range links {
		if i > 0 {
			s += ", "
		}
		s += l.Attrs().Name
	}
	return s
}

// candidates are the interface with this name or MAC address, or all physical
// Ethernets in the order in which the kernel found them.
func candidates(links []netlink.Link, name string) []netlink.Link {
	var out []netlink.Link
	hw, _ := net.ParseMAC(name)
	for _, l := range links {
		named := l.Attrs().Name == name || hw != nil && physical(l) && bytes.Equal(l.Attrs().HardwareAddr, hw)
		if name != "" && named || name == "" && physical(l) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Index, b.Attrs().Index) })
	return out
}

// physical reports whether a link is a network card: virtual devices have a
// kind (IFLA_INFO_KIND), the loopback has another hardware type.
func physical(l netlink.Link) bool {
	return l.Type() == "device" && l.Attrs().EncapType == "ether" && l.Attrs().MasterIndex == 0
}

// awaited is choose while the card that the node was booted from is waited for:
// only that one counts, also before its driver is there. A zero booted waits for
// none.
func awaited(cands []netlink.Link, booted mac.Addr, last, avoid int) netlink.Link {
	if !booted.IsZero() {
		if last = indexOf(cands, booted); last == 0 {
			return nil
		}
	}
	return choose(cands, last, avoid)
}

// choose takes the first candidate with a carrier: last alone while that is
// set, and avoid only if there is no other.
func choose(cands []netlink.Link, last, avoid int) netlink.Link {
	var fallback netlink.Link
	for _, l := range after(cands, avoid) {
		i := l.Attrs().Index
		switch {
		case !rtnl.HasCarrier(l):
		case last != 0 && i != last && byIndex(cands, last) != nil:
		case i == avoid:
			fallback = l
		default:
			return l
		}
	}
	return fallback
}

// after rotates links so that those behind index come first: each gets its turn.
func after(links []netlink.Link, index int) []netlink.Link {
	for i, l := range links {
		if l.Attrs().Index > index {
			return append(slices.Clone(links[i:]), links[:i]...)
		}
	}
	return links
}

// indexOf is the index of the card with a MAC address, 0 if it is not there.
func indexOf(links []netlink.Link, m mac.Addr) int {
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, m[:]) {
			return l.Attrs().Index
		}
	}
	return 0
}

func byIndex(links []netlink.Link, index int) netlink.Link {
	for _, l := range links {
		if l.Attrs().Index == index {
			return l
		}
	}
	return nil
}
