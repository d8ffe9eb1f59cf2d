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

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"quantavirt/netstack/nstest"
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

// request gets a lease for a guest with the client of the tests.
func request(t *testing.T, g *nstest.NS) *dhcpv4.DHCPv4 {
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
	return l.ACK
}

// configure is request, and does what the server says.
func configure(t *testing.T, g *nstest.NS) netip.Prefix {
	t.Helper()
	ack := request(t, g)
	ones, _ := ack.SubnetMask().Size()
	a, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	p := netip.PrefixFrom(a, ones)
	g.Run(t, "ip", "addr", "add", p.String(), "broadcast", ack.BroadcastAddress().String(), "dev", "eth0")
	if r := ack.Router(); len(r) > 0 {
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
