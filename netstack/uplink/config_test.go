package uplink

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

func TestParseStatic(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"192.0.2.10/24", "192.0.2.10/24"},
		{"192.0.2.10/24,192.0.2.1", "192.0.2.10/24,192.0.2.1"},
		{"192.0.2.10/24,192.0.2.1,192.0.2.53", "192.0.2.10/24,192.0.2.1,192.0.2.53"},
		{"192.0.2.10/24,,192.0.2.53,198.51.100.53", "192.0.2.10/24,,192.0.2.53,198.51.100.53"},
		{"192.0.2.10/32,198.51.100.1", "192.0.2.10/32,198.51.100.1"}, // gateway on the link
		{"192.0.2.0/31,192.0.2.1", "192.0.2.0/31,192.0.2.1"},
		{"192.0.2.10/24,,", "192.0.2.10/24"},
		{in: ""}, {in: "192.0.2.10"}, {in: "192.0.2.10/33"}, {in: "192.0.2.0/24"}, {in: "192.0.2.255/24"},
		{in: "0.0.0.0/0"}, {in: "127.0.0.1/8"}, {in: "224.0.0.1/4"}, {in: "2001:db8::1/64"}, {in: "192.0.2.10/0"},
		{in: "192.0.2.10/24,192.0.2.10"}, {in: "192.0.2.10/24,gateway"}, {in: "192.0.2.10/24,224.0.0.1"},
		{in: "192.0.2.10/24,192.0.2.1,dns"}, {in: "192.0.2.10/24,192.0.2.1,::1"}, {in: "192.0.2.10 /24"},
	} {
		got, err := ParseStatic(c.in)
		switch {
		case c.want == "" && qverr.CodeOf(err) != qverr.Inval:
			t.Errorf("%q: %v, %v, want QV_ERR_INVAL", c.in, got, err)
		case c.want != "" && (err != nil || got.String() != c.want):
			t.Errorf("%q: %v, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func FuzzParseStatic(f *testing.F) {
	f.Add("192.0.2.10/24,192.0.2.1,192.0.2.53")
	f.Add("192.0.2.10/24,,")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseStatic(s)
		if err != nil {
			return
		}
		again, err := ParseStatic(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%q became %q, then %q (%v)", s, got, again, err)
		}
	})
}

func TestConfigCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want qverr.Code
	}{
		{"zero is DHCP", Config{}, qverr.Success},
		{"off", Config{Mode: Off}, qverr.Success},
		{"unknown mode", Config{Mode: "pppoe"}, qverr.Inval},
		{"static without an address", Config{Mode: StaticMode}, qverr.Inval},
		{"tiny MTU", Config{MTU: 100}, qverr.NetMTU},
		{"huge MTU", Config{MTU: 70000}, qverr.NetMTU},
	} {
		if got := qverr.CodeOf(c.cfg.Check()); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestChoose: cards are named by their indexes.
func TestChoose(t *testing.T) {
	card := func(index int, carrier bool) netlink.Link {
		la := netlink.LinkAttrs{Index: index, Name: "eth", EncapType: "ether", Flags: net.FlagUp}
		if carrier {
			la.RawFlags = unix.IFF_LOWER_UP | unix.IFF_RUNNING
		}
		return &netlink.Device{LinkAttrs: la}
	}
	for _, c := range []struct {
		name              string
		cards             []netlink.Link
		last, avoid, want int
	}{
		{"none", nil, 0, 0, 0},
		{"no carrier", []netlink.Link{card(2, false)}, 0, 0, 0},
		{"first with a carrier", []netlink.Link{card(2, false), card(3, true), card(4, true)}, 0, 0, 3},
		{"the last one is waited for", []netlink.Link{card(2, false), card(3, true)}, 2, 0, 0},
		{"the last one is gone", []netlink.Link{card(3, true)}, 2, 0, 3},
		{"a silent one gives way", []netlink.Link{card(2, true), card(3, true)}, 0, 2, 3},
		{"in turn", []netlink.Link{card(2, true), card(3, true), card(4, true)}, 0, 3, 4},
		{"and round", []netlink.Link{card(2, true), card(3, true), card(4, true)}, 0, 4, 2},
		{"a silent one is better than none", []netlink.Link{card(2, true), card(3, false)}, 0, 2, 2},
	} {
		got := 0
		if l := choose(c.cards, c.last, c.avoid); l != nil {
			got = l.Attrs().Index
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	links := []netlink.Link{
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo", EncapType: "loopback"}},
		&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: 4, Name: "qvbr0", EncapType: "ether"}},
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 3, Name: "eth1", EncapType: "ether", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 2, Name: "eth0", EncapType: "ether"}},
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 5, Name: "eth2", EncapType: "ether", MasterIndex: 4}},
	}
	for _, c := range []struct{ name, want string }{{"", "eth0, eth1"}, {"qvbr0", "qvbr0"}, {"eth9", ""}, {"02:00:00:00:00:01", "eth1"}, {"02:00:00:00:00:02", ""}} {
		if got := names(candidates(links, c.name)); got != c.want {
			t.Errorf("%q: %q, want %q", c.name, got, c.want)
		}
	}
}

func ackWith(mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	all := append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(80),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
	}, mods...)
	m, err := dhcpv4.New(all...)
	if err != nil {
		panic(err)
	}
	return m
}

func TestParseLease(t *testing.T) {
	seconds := func(code dhcpv4.OptionCode, n int) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.Option{Code: code, Value: dhcpv4.Duration(time.Duration(n) * time.Second)})
	}
	t1, t2 := dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue
	for _, c := range []struct {
		name       string
		mods       []dhcpv4.Modifier
		t1, t2, t3 int // seconds
		bad        bool
	}{
		{"times of RFC 2131", nil, 40, 70, 80, false},
		{"times of the server", []dhcpv4.Modifier{seconds(t1, 10), seconds(t2, 20)}, 10, 20, 80, false},
		{"T1 after T2", []dhcpv4.Modifier{seconds(t1, 60), seconds(t2, 50)}, 40, 50, 80, false},
		{"T2 after the end", []dhcpv4.Modifier{seconds(t2, 90)}, 40, 70, 80, false},
		{"for ever", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(forever)}, 0, 0, 0, false},
		{"no lease time", []dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime)}, 0, 0, 0, true},
		{"one second", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(1)}, 0, 0, 0, true},
		{"no server", []dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier)}, 0, 0, 0, true},
		{"multicast address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))}, 0, 0, 0, true},
		{"no address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, 0, 0, 0, true},
		{"mask with a hole", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})}, 0, 0, 0, true},
	} {
		l, err := parseLease(ackWith(c.mods...), time.Now())
		if c.bad {
			if err == nil {
				t.Errorf("%s: accepted", c.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if l.t1 != time.Duration(c.t1)*time.Second || l.t2 != time.Duration(c.t2)*time.Second || l.t3 != time.Duration(c.t3)*time.Second {
			t.Errorf("%s: T1 %s, T2 %s, end %s", c.name, l.t1, l.t2, l.t3)
		}
	}
}

// TestClasslessRoutes: RFC 3442 routes make the router option void.
func TestClasslessRoutes(t *testing.T) {
	l, err := parseLease(ackWith(dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(192, 0, 2, 2)},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(198, 51, 100, 0).To4(), Mask: net.CIDRMask(24, 32)}, Router: net.IPv4(192, 0, 2, 3)},
	))), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want := route{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("192.0.2.3")}
	if l.net.gateway.String() != "192.0.2.2" || len(l.net.routes) != 1 || l.net.routes[0] != want {
		t.Errorf("gateway %s, routes %v", l.net.gateway, l.net.routes)
	}
}

// FuzzLease feeds what a hostile server may send.
func FuzzLease(f *testing.F) {
	f.Add(ackWith().ToBytes())
	f.Add(ackWith(dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 1))).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := parseLease(m, time.Now())
		if err != nil {
			return
		}
		if !usable(l.net.address.Addr()) || !l.infinite && (l.t1 <= 0 || l.t1 >= l.t2 || l.t2 >= l.t3) {
			t.Errorf("accepted %v with T1 %s, T2 %s, end %s", l.net.address, l.t1, l.t2, l.t3)
		}
		if g := l.net.gateway; g.IsValid() && !g.Is4() {
			t.Errorf("gateway %s", g)
		}
	})
}
