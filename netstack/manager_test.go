package netstack

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/internal/nstest"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/uplink"
)

// Addresses of the tests: the node's uplink and the world behind it.
const (
	nodeAddr  = "203.0.113.2"
	worldAddr = "203.0.113.1"
	gateway   = "192.168.200.1"
)

// node is a manager in the test's namespace.
type node struct {
	*Manager
	state  State
	leases LeaseStore
	dir    string
	status chan Status
}

func newNode(t *testing.T, leases LeaseStore, dir string) *node {
	t.Helper()
	n := &node{leases: leases, dir: dir, status: make(chan Status, 1024)}
	st, err := uplink.ParseStatic(nodeAddr + "/24," + worldAddr + ",203.0.113.53")
	if err != nil {
		t.Fatal(err)
	}
	other := Network{Name: "lab", ID: "0a1b2c3d-0000-4000-8000-000000000000", Subnet: netip.MustParsePrefix("10.77.0.1/24"), DHCP: true}
	n.state = State{Uplink: UplinkConfig{Mode: uplink.StaticMode, Interface: "up0", Static: st},
		Networks: []Network{DefaultNetwork(), other}}
	n.start(t)
	return n
}

// start makes a new manager, as a new process would.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.Manager = New(Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Leases: n.leases, RunDir: n.dir,
		ResolvConf: filepath.Join(n.dir, "resolv.conf"), OnChange: func(s Status) { n.status <- s }})
	m := n.Manager
	t.Cleanup(func() { m.Close() })
}

func (n *node) apply(t *testing.T) {
	t.Helper()
	if err := n.Apply(t.Context(), n.state); err != nil {
		t.Fatal(err)
	}
}

// up applies the state, with the uplink up.
func (n *node) up(t *testing.T) {
	t.Helper()
	n.apply(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if st, err := n.Settled(ctx); err != nil || st.State != uplink.Up {
		t.Fatalf("uplink %+v, %v", st, err)
	}
	// The rules follow the uplink.
	n.await(t, "ready", func(s Status) bool { return s.Uplink.State == uplink.Up })
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.reconcile(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) await(t *testing.T, what string, fits func(Status) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if fits(n.Status()) {
			return
		}
		select {
		case <-n.status:
		case <-deadline:
			t.Fatalf("never %s: %+v", what, n.Status())
		}
	}
}

// world is what lies behind the uplink.
func world(t *testing.T) *nstest.NS {
	t.Helper()
	w := nstest.New(t, "world")
	nstest.Veth(t, "up0", w, "eth0", netip.MustParsePrefix(worldAddr+"/24"))
	nstest.Echo(t, w, worldAddr+":80")
	return w
}

// guest is a machine on a bridge.
func guest(t *testing.T, name, bridgeName string) *nstest.NS {
	t.Helper()
	g := nstest.New(t, name)
	nstest.Veth(t, name, g, "eth0", netip.Prefix{})
	nstest.Run(t, "ip", "link", "set", "dev", name, "master", bridgeName)
	return g
}

// configure gets an address for a guest with the client of the tests.
func configure(t *testing.T, g *nstest.NS) netip.Prefix {
	t.Helper()
	var client *nclient4.Client
	var err error
	g.Do(func() {
		client, err = nclient4.New("eth0", nclient4.WithTimeout(500*time.Millisecond), nclient4.WithRetry(6))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l, err := client.Request(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ones, _ := l.ACK.SubnetMask().Size()
	a, _ := netip.AddrFromSlice(l.ACK.YourIPAddr.To4())
	p := netip.PrefixFrom(a, ones)
	g.Run(t, "ip", "addr", "add", p.String(), "broadcast", l.ACK.BroadcastAddress().String(), "dev", "eth0")
	if r := l.ACK.Router(); len(r) > 0 {
		g.Run(t, "ip", "route", "add", "default", "via", r[0].String())
	}
	return p
}

// udhcpc gets an address with busybox's client and returns what it was told.
func udhcpc(t *testing.T, g *nstest.NS, hostname string) map[string]string {
	t.Helper()
	busybox := nstest.Need(t, "busybox")
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	body := "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nexec env > " + dir + "/lease\n"
	if err := os.WriteFile(script, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{busybox, "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "6", "-T", "1", "-s", script, "-O", "mtu", "-O", "hostname"}
	if hostname != "" {
		args = append(args, "-x", "hostname:"+hostname)
	}
	g.Run(t, args...)
	b, err := os.ReadFile(filepath.Join(dir, "lease"))
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[k] = v
	}
	return told
}

func mustDial(t *testing.T, g *nstest.NS, addr, wantFrom string) {
	t.Helper()
	from, err := nstest.Dial(g, addr)
	if err != nil || !strings.HasPrefix(from, wantFrom+":") {
		t.Errorf("%s to %s: seen as %q (%v), want %s", g.Name, addr, from, err, wantFrom)
	}
}

func mustNotDial(t *testing.T, g *nstest.NS, addr string) {
	t.Helper()
	if from, err := nstest.Dial(g, addr); err == nil {
		t.Errorf("%s reached %s, as %s", g.Name, addr, from)
	}
}

func mustPing(t *testing.T, g *nstest.NS, addr string, want bool) {
	t.Helper()
	if err := nstest.Ping(g, addr); (err == nil) != want {
		t.Errorf("%s pings %s: %v, want success %v", g.Name, addr, err, want)
	}
}

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

// addresses is `ip -j addr` of the bridges, without what is the kernel's choice.
func addresses(t *testing.T) string {
	t.Helper()
	var links []map[string]any
	out := nstest.Run(t, "ip", "-j", "addr", "show", "type", "bridge")
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var kept []map[string]any
	for _, l := range links {
		if len(l) == 0 {
			continue
		}
		k := make(map[string]any)
		for _, key := range []string{"ifname", "mtu", "address", "ifalias", "addr_info"} {
			k[key] = l[key]
		}
		for _, a := range k["addr_info"].([]any) {
			delete(a.(map[string]any), "valid_life_time")
			delete(a.(map[string]any), "preferred_life_time")
		}
		kept = append(kept, k)
	}
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
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
	n.apply(t)
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
	f, name, err := n.AddPort(t.Context(), "default", Port{ID: "p", MAC: MAC{2, 0, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
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

// untilLinks looks at a condition after each change of the links.
func untilLinks(t *testing.T, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w, err := rtnl.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	for {
		_, changed, err := w.Links()
		if err != nil {
			t.Fatal(err)
		}
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("never came true")
		}
	}
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
