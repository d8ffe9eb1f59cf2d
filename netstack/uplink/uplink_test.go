package uplink

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/nstest"
	"quantavirt/netstack/rtnl"
)

// server is a DHCP server in another namespace that does what the test says.
type server struct {
	mu     sync.Mutex
	silent bool
	nak    bool
	addr   string
	times  [3]int // T1, T2, lease, in seconds
	seen   chan string
}

const serverAddr = "198.51.100.1"

// serve starts s on up0's other end.
func (s *server) serve(t *testing.T) *nstest.NS {
	t.Helper()
	out := nstest.New(t, "outside")
	nstest.Veth(t, "up0", out, "eth0", netip.MustParsePrefix(serverAddr+"/24"))
	s.seen = make(chan string, 64)
	var conn net.PacketConn
	var err error
	out.Do(func() { conn, err = server4.NewIPv4UDPConn("eth0", &net.UDPAddr{IP: net.IPv4zero, Port: 67}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, peer, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			req, err := dhcpv4.FromBytes(buf[:n])
			if err != nil {
				t.Errorf("client sent nonsense: %v", err)
				continue
			}
			s.answer(conn, peer, req)
		}
	}()
	return out
}

func (s *server) set(fn func()) { s.mu.Lock(); defer s.mu.Unlock(); fn() }

// answer records what came as TYPE, "from" the source, and REQUEST's kind.
func (s *server) answer(conn net.PacketConn, peer net.Addr, req *dhcpv4.DHCPv4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := req.MessageType().String()
	if req.MessageType() == dhcpv4.MessageTypeRequest {
		switch {
		case req.ServerIdentifier() != nil:
			what += " selecting"
		case req.RequestedIPAddress() != nil:
			what += " init-reboot"
		default:
			what += " renew from " + req.ClientIPAddr.String()
		}
	}
	select {
	case s.seen <- what:
	default:
	}
	if s.silent {
		return
	}
	typ := dhcpv4.MessageTypeOffer
	if req.MessageType() != dhcpv4.MessageTypeDiscover {
		typ = dhcpv4.MessageTypeAck
		if s.nak {
			typ = dhcpv4.MessageTypeNak
		}
	}
	resp, _ := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(serverAddr))))
	if typ != dhcpv4.MessageTypeNak {
		resp.YourIPAddr = net.ParseIP(s.addr)
		for _, m := range []dhcpv4.Modifier{
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.ParseIP(serverAddr)),
			dhcpv4.WithDNS(net.ParseIP("198.51.100.53"), net.ParseIP("198.51.100.54")), dhcpv4.WithLeaseTime(uint32(s.times[2])),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRenewTimeValue, Value: dhcpv4.Duration(s.times[0]) * dhcpv4.Duration(time.Second)}),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRebindingTimeValue, Value: dhcpv4.Duration(s.times[1]) * dhcpv4.Duration(time.Second)}),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(1450)}),
		} {
			m(resp)
		}
	}
	dst := net.Addr(&net.UDPAddr{IP: net.IPv4bcast, Port: 68})
	if strings.Contains(what, "renew") || what == "INFORM" {
		dst = peer
	}
	conn.WriteTo(resp.ToBytes(), dst)
}

// expect waits for the next message of the client that is want, passing over
// repetitions.
func (s *server) expect(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var got []string
	for {
		select {
		case g := <-s.seen:
			if g == want {
				return
			}
			got = append(got, g)
		case <-deadline:
			t.Fatalf("the client never sent %q; it sent %q", want, got)
		}
	}
}

// run is an Uplink that runs, with the statuses it went through.
type run struct {
	*Uplink
	dir    string
	states chan Status
	stop   func()
}

func start(t *testing.T, cfg Config, dir string) *run {
	t.Helper()
	r := &run{dir: dir, states: make(chan Status, 256)}
	r.Uplink = New(cfg, Options{ResolvConf: filepath.Join(dir, "resolv.conf"), LeaseFile: filepath.Join(dir, "lease"),
		Hostname: "node-1", OnChange: func(s Status) { r.states <- s }})
	r.time = timing{grace: 300 * time.Millisecond, failover: 300 * time.Millisecond, attempts: 3,
		first: 100 * time.Millisecond, max: 400 * time.Millisecond, renewWait: 200 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// await waits for a status that fits.
func (r *run) await(t *testing.T, what string, fits func(Status) bool) Status {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var last Status
	for {
		select {
		case last = <-r.states:
			if fits(last) {
				return last
			}
		case <-deadline:
			t.Fatalf("never %s; last %+v", what, last)
		}
	}
}

func isUp(s Status) bool { return s.State == Up }

func problem(code qverr.Code, part string) func(Status) bool {
	return func(s Status) bool {
		return s.State == Down && s.Problem != nil && s.Problem.Code == code && strings.Contains(s.Problem.Message, part)
	}
}

// addrs is `ip -j addr` without what differs from run to run.
func addrs(t *testing.T, dev string) string {
	t.Helper()
	var links []struct {
		Ifname string
		Mtu    int
		Addrs  []struct {
			Family, Local, Broadcast, Scope string
			Prefixlen                       int
			Valid                           uint32 `json:"valid_life_time"`
		} `json:"addr_info"`
	}
	out := nstest.Run(t, "ip", "-j", "-4", "addr", "show", "dev", dev)
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var b strings.Builder
	for _, l := range links {
		if l.Ifname == "" {
			continue // ip prints an empty object for a link without addresses
		}
		fmt.Fprintf(&b, "%s mtu %d\n", l.Ifname, l.Mtu)
		for _, a := range l.Addrs {
			life := "limited"
			if a.Valid == 0xffffffff {
				life = "forever"
			}
			fmt.Fprintf(&b, "  %s %s/%d scope %s %s\n", a.Family, a.Local, a.Prefixlen, a.Scope, life)
		}
	}
	return b.String()
}

func snapshot(t *testing.T, r *run) string {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join(r.dir, "resolv.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return addrs(t, "up0") + nstest.Run(t, "ip", "-4", "route", "show", "dev", "up0") + string(conf)
}

var dhcpOnUp0 = Config{Mode: DHCP, Interface: "up0"}

func TestDHCP(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{600, 1000, 1200}}
	s.serve(t)
	began := time.Now()
	r := start(t, dhcpOnUp0, t.TempDir())
	st := r.await(t, "up", isUp)
	t.Logf("address after %s", time.Since(began))
	<-r.Settled()
	nstest.Golden(t, "dhcp.txt", snapshot(t, r))
	if st.Address.String() != "198.51.100.20/24" || st.Gateway.String() != serverAddr || len(st.DNS) != 2 || st.MTU != 1450 ||
		st.Lease == nil || st.Lease.Server.String() != serverAddr || st.Lease.Expires.Sub(st.Lease.Acquired) != 1200*time.Second {
		t.Errorf("status %+v, lease %+v", st, st.Lease)
	}
	s.expect(t, "DISCOVER")
	s.expect(t, "REQUEST selecting")
	if got := KnownDNS(filepath.Join(r.dir, "resolv.conf")); len(got) != 2 || got[0].String() != "198.51.100.53" {
		t.Errorf("name servers read back: %v", got)
	}
}

// TestRestart: a second process takes the lease over and the address is never
// removed or set to something else.
func TestRestart(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{600, 1000, 1200}}
	s.serve(t)
	dir := t.TempDir()
	r := start(t, dhcpOnUp0, dir)
	r.await(t, "up", isUp)
	before := snapshot(t, r)
	r.stop()

	updates, done := make(chan netlink.AddrUpdate, 16), make(chan struct{})
	if err := netlink.AddrSubscribe(updates, done); err != nil {
		t.Fatal(err)
	}
	r = start(t, dhcpOnUp0, dir)
	r.await(t, "up", isUp)
	s.expect(t, "REQUEST init-reboot")
	r.await(t, "confirmed", isUp)
	if after := snapshot(t, r); after != before {
		t.Errorf("changed:\n%s\nwas:\n%s", after, before)
	}
	// A silent server does not take the address of a valid lease away.
	r.stop()
	s.set(func() { s.silent = true })
	r = start(t, dhcpOnUp0, dir)
	r.await(t, "up", isUp)
	s.expect(t, "REQUEST init-reboot")
	if after := snapshot(t, r); after != before {
		t.Errorf("changed:\n%s\nwas:\n%s", after, before)
	}
	close(done)
	for u := range updates {
		if !u.NewAddr {
			t.Errorf("address %s was removed", u.LinkAddress.String())
		}
	}
}

// TestLifetime follows one lease through renewal, rebinding and its end.
func TestLifetime(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{1, 2, 3}}
	s.serve(t)
	r := start(t, dhcpOnUp0, t.TempDir())
	first := r.await(t, "up", isUp)
	s.expect(t, "REQUEST renew from 198.51.100.20")
	second := r.await(t, "renewed", isUp)
	if !second.Lease.Acquired.After(first.Lease.Acquired) {
		t.Errorf("acquired %s, then %s", first.Lease.Acquired, second.Lease.Acquired)
	}
	s.set(func() { s.silent = true })
	st := r.await(t, "expired", problem(qverr.Timeout, "lost its DHCP lease"))
	t.Logf("lost: %v", st.Problem)
	if got := addrs(t, "up0"); strings.Contains(got, "198.51.100.20") {
		t.Errorf("the address outlived its lease:\n%s", got)
	}
	r.await(t, "without an answer", problem(qverr.Timeout, "no DHCP server answers"))
	s.set(func() { s.silent, s.addr = false, "198.51.100.21" })
	if st := r.await(t, "up again", isUp); st.Address.String() != "198.51.100.21/24" {
		t.Errorf("address %s", st.Address)
	}
}

func TestNak(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{1, 4, 6}}
	s.serve(t)
	r := start(t, dhcpOnUp0, t.TempDir())
	r.await(t, "up", isUp)
	s.set(func() { s.nak = true })
	r.await(t, "refused", problem(qverr.Timeout, "refused"))
	s.set(func() { s.nak, s.addr = false, "198.51.100.30" })
	if st := r.await(t, "up again", isUp); st.Address.String() != "198.51.100.30/24" {
		t.Errorf("address %s", st.Address)
	}
	if got := addrs(t, "up0"); strings.Contains(got, "198.51.100.20") {
		t.Errorf("the refused address is still there:\n%s", got)
	}
}

func TestCarrier(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{600, 1000, 1200}}
	out := s.serve(t)
	r := start(t, dhcpOnUp0, t.TempDir())
	r.await(t, "up", isUp)
	out.Run(t, "ip", "link", "set", "eth0", "down")
	r.await(t, "without a carrier", problem(qverr.NoDev, "lost its carrier"))
	out.Run(t, "ip", "link", "set", "eth0", "up")
	s.expect(t, "REQUEST init-reboot")
	r.await(t, "up again", isUp)
	// A server of another network refuses the old address.
	out.Run(t, "ip", "link", "set", "eth0", "down")
	r.await(t, "without a carrier", problem(qverr.NoDev, "carrier"))
	s.set(func() { s.nak = true })
	out.Run(t, "ip", "link", "set", "eth0", "up")
	r.await(t, "refused", problem(qverr.Timeout, "refused"))
	s.set(func() { s.nak, s.addr = false, "198.51.100.40" })
	if st := r.await(t, "up again", isUp); st.Address.String() != "198.51.100.40/24" {
		t.Errorf("address %s", st.Address)
	}
}

// TestAppears: the card's driver may come after the daemon.
func TestAppears(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	r := start(t, dhcpOnUp0, t.TempDir())
	r.await(t, "without an interface", problem(qverr.NoDev, "there is no interface up0"))
	<-r.Settled()
	s := &server{addr: "198.51.100.20", times: [3]int{600, 1000, 1200}}
	s.serve(t)
	r.await(t, "up", isUp)
}

// Who has an address asks for more: broadcast, and answered to that address. What
// does not fit is passed over, and the wait for better ends.
func TestInform(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s := &server{addr: "198.51.100.20", times: [3]int{600, 1000, 1200}}
	s.serve(t)
	r := start(t, dhcpOnUp0, t.TempDir())
	any := func(*dhcpv4.DHCPv4) bool { return true }
	r.await(t, "up", isUp)
	ack, err := r.Inform(t.Context(), []dhcpv4.Option{dhcpv4.OptClassIdentifier("QuantaVirt")}, any)
	if err != nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.ServerIdentifier().String() != serverAddr {
		t.Errorf("%v, %v", ack, err)
	}
	s.expect(t, "INFORM")
	if ack, err := r.Inform(t.Context(), nil, func(*dhcpv4.DHCPv4) bool { return false }); qverr.CodeOf(err) != qverr.Timeout || ack != nil {
		t.Errorf("answers that do not fit: %v, %v", ack, err)
	}
	s.set(func() { s.silent = true })
	if ack, err := r.Inform(t.Context(), nil, any); qverr.CodeOf(err) != qverr.Timeout || ack != nil {
		t.Errorf("silence: %v, %v", ack, err)
	}
	r.stop()
	if _, err := New(dhcpOnUp0, Options{}).Inform(t.Context(), nil, any); qverr.CodeOf(err) != qverr.NoDev {
		t.Errorf("without an address: %v", err)
	}
}

func TestStatic(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	out := nstest.New(t, "outside")
	nstest.Veth(t, "up0", out, "eth0", netip.MustParsePrefix("198.51.100.1/24"))
	// What was there before goes, even from the same subnet.
	nstest.Run(t, "ip", "addr", "add", "198.51.100.9/24", "dev", "up0")
	st, err := ParseStatic("198.51.100.10/24,198.51.100.1,198.51.100.53,9.9.9.9")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{Mode: StaticMode, Interface: "up0", Static: st, MTU: 1400}, t.TempDir())
	r.await(t, "up", isUp)
	nstest.Golden(t, "static.txt", snapshot(t, r))
	nstest.Echo(t, out, "198.51.100.1:80")
	if from, err := nstest.Dial(nil, "198.51.100.1:80"); err != nil || !strings.HasPrefix(from, "198.51.100.10:") {
		t.Errorf("the gateway saw %q, %v", from, err)
	}
	out.Run(t, "ip", "link", "set", "eth0", "down")
	r.await(t, "without a carrier", problem(qverr.NoDev, "carrier"))
	out.Run(t, "ip", "link", "set", "eth0", "up")
	r.await(t, "up again", isUp)
	r.stop()
	if err := r.Teardown(); err != nil {
		t.Fatal(err)
	}
	if got := addrs(t, "up0"); strings.Contains(got, "inet") {
		t.Errorf("after Teardown:\n%s", got)
	}
}

// TestWatchBurst: no change is lost.
func TestWatchBurst(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w, err := rtnl.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	const n = 64
	for i := range n / 2 {
		la := netlink.NewLinkAttrs()
		la.Name = fmt.Sprintf("a%d", i)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: fmt.Sprintf("b%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(20 * time.Second)
	for {
		links, changed, err := w.Links()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, l := range links {
			if l.Type() == "veth" {
				found++
			}
		}
		if found == n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d of %d links seen", found, n)
		}
	}
}
