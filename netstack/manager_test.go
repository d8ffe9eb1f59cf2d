package netstack

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/nstest"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/uplink"
)

// TestGuests is the whole way of a guest's packet.
func TestGuests(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	out := world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	nstest.Golden(t, "bridges.json", addresses(t))
	nstest.Golden(t, "table.nft", nstest.Run(t, "nft", "list", "table", "inet", "quantavirt"))

	a, b, c := guest(t, "a", "qvbr0"), guest(t, "b", "qvbr0"), guest(t, "c", "qvb0a1b2c3d")
	addrA, addrB, addrC := configure(t, a), configure(t, b), configure(t, c)
	if addrA.String() != "192.168.200.2/24" || addrB.String() != "192.168.200.3/24" || addrC.String() != "10.77.0.2/24" {
		t.Fatalf("addresses %s, %s, %s", addrA, addrB, addrC)
	}
	for _, g := range []struct {
		ns   *nstest.NS
		addr netip.Prefix
	}{{a, addrA}, {b, addrB}, {c, addrC}} {
		nstest.Echo(t, g.ns, g.addr.Addr().String()+":80")
	}
	nstest.Echo(t, nil, "0.0.0.0:9400") // the node's API
	c.Run(t, "ip", "route", "add", "default", "via", "10.77.0.1")
	out.Run(t, "ip", "route", "add", "192.168.200.0/24", "via", nodeAddr)

	mustDial(t, a, worldAddr+":80", nodeAddr) // through NAT
	mustDial(t, a, addrB.Addr().String()+":80", addrA.Addr().String())
	mustDial(t, out, nodeAddr+":9400", worldAddr) // the API from outside
	mustPing(t, a, gateway, true)
	mustPing(t, a, worldAddr, true)

	mustNotDial(t, a, gateway+":9400")
	mustNotDial(t, a, nodeAddr+":9400")
	mustNotDial(t, a, "10.77.0.1:9400")
	mustPing(t, a, nodeAddr, false)
	mustPing(t, a, "10.77.0.1", false)
	mustNotDial(t, a, addrC.Addr().String()+":80") // other network
	mustNotDial(t, c, addrA.Addr().String()+":80")
	mustNotDial(t, c, worldAddr+":80") // a network without NAT
	mustPing(t, c, "10.77.0.1", true)
	mustNotDial(t, out, addrA.Addr().String()+":80") // from the uplink inwards

	// A source address of elsewhere gets neither to the node nor out.
	a.Run(t, "ip", "addr", "add", "10.77.0.99/32", "dev", "eth0")
	a.Run(t, "ip", "route", "replace", "default", "via", gateway, "src", "10.77.0.99")
	mustNotDial(t, a, worldAddr+":80")
	mustNotDial(t, a, addrC.Addr().String()+":80")
}

// TestUdhcpc: a client that is not ours understands the server.
func TestUdhcpc(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Need(t, "busybox")
	world(t)
	n := newNode(t, nil, t.TempDir())
	m := MACFor(vm, 0)
	n.state.Networks[0].Fixed = []FixedLease{{MAC: m, Address: netip.MustParseAddr("192.168.200.77"), Hostname: "db"}}
	n.up(t)
	ns := guest(t, "a", "qvbr0")
	ns.Run(t, "ip", "link", "set", "eth0", "address", m.String())
	told := udhcpc(t, ns, "inside")
	for k, want := range map[string]string{"ip": "192.168.200.77", "mask": "24", "router": gateway, "dns": "203.0.113.53",
		"mtu": "1500", "hostname": "db", "serverid": gateway, "lease": "3600", "broadcast": "192.168.200.255"} {
		if told[k] != want {
			t.Errorf("%s: told %q, want %q", k, told[k], want)
		}
	}
	ls, err := n.Leases("default")
	if err != nil || len(ls) != 1 || ls[0].MAC != m || ls[0].Hostname != "inside" || !ls[0].Fixed {
		t.Errorf("leases %+v, %v", ls, err)
	}
}

// TestNameServers: guests get those of the uplink, as they are now, unless
// their network has its own.
func TestNameServers(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	g := guest(t, "a", "qvbr0")
	want := func(when, dns string) {
		t.Helper()
		if got := request(t, g).DNS(); len(got) != 1 || got[0].String() != dns {
			t.Errorf("%s: %v, want %s", when, got, dns)
		}
	}
	want("at first", "203.0.113.53")
	n.state.Uplink.Static.DNS = []netip.Addr{netip.MustParseAddr("203.0.113.54")}
	n.up(t)
	want("after a change of the uplink's", "203.0.113.54")
	n.state.Networks[0].DNS = []netip.Addr{netip.MustParseAddr("9.9.9.9")}
	n.apply(t)
	want("of the network", "9.9.9.9")
	n.state.Networks[0].DNS = nil
	n.state.Uplink = UplinkConfig{Mode: uplink.Off}
	n.apply(t)
	n.await(t, "off", func(s Status) bool { return s.Uplink.State == uplink.None })
	if got := nstest.Run(t, "ip", "-4", "addr", "show", "dev", "up0"); strings.Contains(got, nodeAddr) {
		t.Errorf("the address of the old uplink is left: %s", got)
	}
}

// TestRestart: a new process adopts everything; connections of guests go on.
func TestRestart(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, new(dhcp.Memory), t.TempDir())
	n.up(t)
	g := guest(t, "a", "qvbr0")
	configure(t, g)
	conn, _, err := nstest.Open(g, worldAddr+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	snapshot := func() string {
		return nstest.Run(t, "nft", "-a", "list", "table", "inet", "quantavirt") + nstest.Run(t, "ip", "-o", "addr") +
			nstest.Run(t, "ip", "-o", "link") + nstest.Run(t, "ip", "route")
	}
	before := snapshot()
	events, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	if err := netlink.AddrSubscribe(events, done); err != nil {
		t.Fatal(err)
	}
	links, linksDone := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(links, linksDone); err != nil {
		t.Fatal(err)
	}

	n.Close()
	n.start(t)
	// The uplink alone leaves the networks of the process before as they are.
	if err := n.Connect(n.state.Uplink); err != nil {
		t.Fatal(err)
	}
	if st, err := n.Settled(t.Context()); err != nil || st.State != uplink.Up {
		t.Errorf("the uplink alone: %+v, %v", st, err)
	}
	if after := snapshot(); after != before {
		t.Errorf("Connect changed something:\n%s\nwas:\n%s", after, before)
	}
	if st := n.Uplink(); st.State != uplink.Up || st.Address.Addr().String() != nodeAddr {
		t.Errorf("%+v", st)
	}
	up := n.Manager.up
	n.apply(t)
	if n.Manager.up != up {
		t.Error("Apply has begun with the uplink anew")
	}
	if after := snapshot(); after != before {
		t.Errorf("Apply changed something:\n%s\nwas:\n%s", after, before)
	}
	n.up(t)
	if after := snapshot(); after != before {
		t.Errorf("the uplink changed something:\n%s\nwas:\n%s", after, before)
	}
	close(done)
	close(linksDone)
	for e := range events {
		if !e.NewAddr {
			t.Errorf("address %s was removed for a moment", e.LinkAddress.String())
		}
	}
	for l := range links {
		t.Errorf("link %s was touched", l.Attrs().Name)
	}
	if err := nstest.Alive(conn); err != nil {
		t.Errorf("the guest's connection broke: %v", err)
	}
	ls, err := n.Leases("default")
	if err != nil || len(ls) != 1 || ls[0].Address.String() != "192.168.200.2" {
		t.Errorf("leases %+v, %v", ls, err)
	}
	h := guest(t, "h", "qvbr0")
	if p := configure(t, h); p.String() != "192.168.200.3/24" {
		t.Errorf("a new guest got %s", p)
	}
}

// TestRepair: what somebody else breaks is made again.
func TestRepair(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	queues, name, err := n.AddPort(t.Context(), "default", Port{ID: "p", MAC: MAC{2, 0, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer queues[0].Close()
	nstest.Run(t, "ip", "link", "del", "qvbr0")
	attached := func(s Status) bool {
		return s.Networks[0].Ready && len(s.Networks[0].Ports) == 1 && s.Networks[0].Ports[0].Attached
	}
	untilLinks(t, func() bool { return attached(n.Status()) })
	g := guest(t, "a", "qvbr0")
	configure(t, g)
	mustDial(t, g, worldAddr+":80", nodeAddr)
	nstest.Run(t, "ip", "link", "set", "dev", name, "nomaster")
	untilLinks(t, func() bool { return attached(n.Status()) })
	nstest.Run(t, "ip", "link", "set", "qvbr0", "down")
	untilLinks(t, func() bool { l, _ := rtnl.Link("qvbr0"); return rtnl.IsUp(l) })
	mustPing(t, g, gateway, true)
}

func TestNetworksComeAndGo(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	full := n.state
	n.state.Networks = full.Networks[:1]
	n.apply(t)
	if l, _ := rtnl.Link("qvb0a1b2c3d"); l != nil {
		t.Error("the removed network's bridge is still there")
	}
	if table := nstest.Run(t, "nft", "list", "table", "inet", "quantavirt"); strings.Contains(table, "10.77.") || strings.Contains(table, "qvb0a1b2c3d") {
		t.Errorf("rules left:\n%s", table)
	}
	// A bridge that an earlier process left goes as well.
	n.state = full
	n.apply(t)
	n.Close()
	n.start(t)
	n.state.Networks = nil
	n.apply(t)
	if got := addresses(t); strings.Contains(got, "qvb") {
		t.Errorf("left: %s", got)
	}
	if tables := nstest.Run(t, "nft", "list", "tables"); tables != "" {
		t.Errorf("left: %s", tables)
	}
	// A foreign bridge stays and is said to be in the way.
	nstest.Run(t, "ip", "link", "add", "qvbr0", "type", "veth", "peer", "name", "x")
	n.state = full
	if err := n.Apply(t.Context(), n.state); err == nil || !strings.Contains(err.Error(), "not a bridge") {
		t.Errorf("Apply: %v", err)
	}
	if st := n.Status(); st.Networks[0].Ready || st.Networks[0].Problem == nil || !st.Networks[1].Ready {
		t.Errorf("status %+v", st.Networks)
	}
	nstest.Run(t, "ip", "link", "del", "qvbr0")
	n.await(t, "ready", func(s Status) bool { return s.Networks[0].Ready })
}

// TestOverlap: the node stays reachable when the uplink gets an address of a
// network's subnet.
func TestOverlap(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	out := nstest.New(t, "world")
	nstest.Veth(t, "up0", out, "eth0", netip.MustParsePrefix("192.168.200.254/24"))
	nstest.Echo(t, out, "192.168.200.254:80")
	n := newNode(t, nil, t.TempDir())
	st, err := uplink.ParseStatic("192.168.200.50/24,192.168.200.254")
	if err != nil {
		t.Fatal(err)
	}
	n.state.Uplink.Static = st
	n.Apply(t.Context(), n.state)
	n.await(t, "in conflict", func(s Status) bool { return s.Networks[0].Problem != nil })
	if st := n.Status(); !strings.Contains(st.Networks[0].Problem.Message, "overlaps the uplink") || !st.Networks[1].Ready {
		t.Errorf("status %+v", st.Networks)
	}
	if from, err := nstest.Dial(nil, "192.168.200.254:80"); err != nil || !strings.HasPrefix(from, "192.168.200.50:") {
		t.Errorf("the node is cut off: %q, %v", from, err)
	}
	if _, _, err := n.AddPort(t.Context(), "default", Port{ID: "p", MAC: MAC{2, 0, 0, 0, 0, 1}}); err == nil {
		t.Error("a port on a network in conflict")
	}
}
