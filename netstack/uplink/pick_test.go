package uplink

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/netstack/mac"
)

// A node takes the card that it was booted from, though another has a carrier
// first, and any other once that one has had its time.
func TestBootCard(t *testing.T) {
	booted, other := mac.Addr{0x52, 0x54, 0, 0, 2}, mac.Addr{0x52, 0x54, 0, 0, 1}
	card := func(index int, m mac.Addr, carrier bool) netlink.Link {
		a := netlink.LinkAttrs{Index: index, Name: "eth", HardwareAddr: m[:], Flags: net.FlagUp, RawFlags: unix.IFF_UP}
		if carrier {
			a.RawFlags |= unix.IFF_RUNNING | unix.IFF_LOWER_UP
		}
		return &netlink.Device{LinkAttrs: a}
	}
	for name, c := range map[string]struct {
		cards  []netlink.Link
		booted mac.Addr
		last   int
		want   int // index, 0 for none
	}{
		"both":                      {[]netlink.Link{card(1, other, true), card(2, booted, true)}, booted, 0, 2},
		"it has no carrier yet":     {[]netlink.Link{card(1, other, true), card(2, booted, false)}, booted, 0, 0},
		"it has no driver yet":      {[]netlink.Link{card(1, other, true)}, booted, 0, 0},
		"it has had its time":       {[]netlink.Link{card(1, other, true), card(2, booted, false)}, mac.Addr{}, 0, 1},
		"from none":                 {[]netlink.Link{card(1, other, true), card(2, booted, true)}, mac.Addr{}, 0, 1},
		"the one that just lost it": {[]netlink.Link{card(1, other, true), card(2, booted, false)}, mac.Addr{}, 2, 0},
	} {
		got := 0
		if l := awaited(c.cards, c.booted, c.last, 0); l != nil {
			got = l.Attrs().Index
		}
		if got != c.want {
			t.Errorf("%s: card %d, not %d", name, got, c.want)
		}
	}
}
