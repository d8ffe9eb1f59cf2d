package netstack

import (
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/uplink"
)

func TestRefusedStates(t *testing.T) {
	lab := func(fn func(*Network)) State {
		n := Network{Name: "lab", ID: "0a1b2c3d-0000-4000-8000-000000000000", Subnet: netip.MustParsePrefix("10.77.0.1/24"), DHCP: true}
		fn(&n)
		return State{Networks: []Network{DefaultNetwork(), n}}
	}
	subnet := func(s string) State { return lab(func(n *Network) { n.Subnet = netip.MustParsePrefix(s) }) }
	for _, c := range []struct {
		name  string
		state State
		want  qverr.Code
	}{
		{"fine", lab(func(*Network) {}), qverr.Success},
		{"no networks", State{}, qverr.Success},
		{"no name", lab(func(n *Network) { n.Name = "" }), qverr.NetCreate},
		{"no id", lab(func(n *Network) { n.ID = "" }), qverr.NetCreate},
		{"same name", lab(func(n *Network) { n.Name = "default" }), qverr.NetCreate},
		{"same id", lab(func(n *Network) { n.ID = DefaultNetwork().ID }), qverr.NetCreate},
		{"same bridge", lab(func(n *Network) { n.Bridge = "qvbr0" }), qverr.NetCreate},
		{"bridge outside of the rules", lab(func(n *Network) { n.Bridge = "br0" }), qverr.NetCreate},
		{"long bridge name", lab(func(n *Network) { n.Bridge = "qvb0123456789abc" }), qverr.NetCreate},
		{"bridge name with a slash", lab(func(n *Network) { n.Bridge = "qvb/../x" }), qverr.NetCreate},
		{"no subnet", lab(func(n *Network) { n.Subnet = netip.Prefix{} }), qverr.NetCreate},
		{"overlap", subnet("192.168.0.1/16"), qverr.NetCreate},
		{"network address", subnet("10.77.0.0/24"), qverr.NetCreate},
		{"broadcast address", subnet("10.77.0.255/24"), qverr.NetCreate},
		{"no room for guests", subnet("10.77.0.1/31"), qverr.NetCreate},
		{"IPv6", subnet("2001:db8::1/64"), qverr.NetCreate},
		{"loopback", subnet("127.0.0.1/24"), qverr.NetCreate},
		{"tiny MTU", lab(func(n *Network) { n.MTU = 60 }), qverr.NetMTU},
		{"huge MTU", lab(func(n *Network) { n.MTU = 65536 }), qverr.NetMTU},
		{"IPv6 name server", lab(func(n *Network) { n.DNS = []netip.Addr{netip.IPv6Loopback()} }), qverr.NetCreate},
		{"fixed lease elsewhere", lab(func(n *Network) {
			n.Fixed = []FixedLease{{MAC: MAC{2, 0, 0, 0, 0, 1}, Address: netip.MustParseAddr("10.78.0.9")}}
		}), qverr.NetCreate},
		{"static uplink without an address", State{Uplink: UplinkConfig{Mode: uplink.StaticMode}}, qverr.Inval},
	} {
		err := check(normal(c.state))
		if got := qverr.CodeOf(err); got != c.want {
			t.Errorf("%s: %v (%v), want %v", c.name, got, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	vm := uuid.MustParse("6f1f2a3b-1111-4222-8333-444455556666")
	for _, c := range []struct{ got, want string }{
		{BridgeName("0a1b2c3d-0000-4000-8000-000000000000"), "qvb0a1b2c3d"},
		{TAPName("0A1B2C3D-0000-4000-8000-000000000000"), "qvt0a1b2c3d"},
		{DefaultNetwork().Bridge, "qvbr0"},
		{DefaultNetwork().ID, "53d4751c-43af-5ba4-9fe8-de9cfa248152"},
		{PortID(vm, 0), "7e4ddbbd-f661-5002-9373-904a33b89783"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	if TAPName(PortID(vm, 0)) == TAPName(PortID(vm, 1)) || TAPName("a") == TAPName("b") {
		t.Error("two ports have one name")
	}
}
