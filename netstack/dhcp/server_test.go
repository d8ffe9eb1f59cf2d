package dhcp

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// world is a server without a socket, with a clock that the test turns.
type world struct {
	*Server
	t     *testing.T
	clock time.Time
	log   bytes.Buffer
	store *flaky
}

// flaky is a Store that fails on demand.
type flaky struct {
	Memory
	fail error
}

func (f *flaky) Save(id string, l Lease) error {
	if f.fail != nil {
		return f.fail
	}
	return f.Memory.Save(id, l)
}

func testConfig() Config {
	return Config{NetworkID: "net", Bridge: "qvbr0", Subnet: netip.MustParsePrefix("10.0.0.1/29"), Router: true,
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("127.0.0.53")}, MTU: 1450, Domain: "vm.internal"}
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, clock: time.Unix(1_800_000_000, 0), store: new(flaky)}
	w.restart(cfg)
	return w
}

// restart makes a new server on the same store.
func (w *world) restart(cfg Config) {
	w.t.Helper()
	s, err := New(cfg, w.store, slog.New(slog.NewTextHandler(&w.log, nil)))
	if err != nil {
		w.t.Fatal(err)
	}
	s.now = func() time.Time { return w.clock }
	w.Server = s
}

func guest(n byte) mac.Addr { return mac.Addr{0x52, 0x54, 0, 0, 0, n} }

// send gives the server a message as bytes, as the socket would.
func (w *world) send(m mac.Addr, typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	w.t.Helper()
	all := append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(m.HW()), dhcpv4.WithMessageType(typ)}, mods...)
	msg, err := dhcpv4.New(all...)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.respond(msg.ToBytes())
}

func asking(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a)))
}

func having(a string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(a)) }

func of(server string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(server)))
}

// lease goes through the four messages and returns the address.
func (w *world) lease(m mac.Addr, mods ...dhcpv4.Modifier) string {
	w.t.Helper()
	offer := w.send(m, dhcpv4.MessageTypeDiscover, mods...)
	if offer == nil {
		return ""
	}
	a := offer.YourIPAddr.String()
	ack := w.send(m, dhcpv4.MessageTypeRequest, append(mods, asking(a), of("10.0.0.1"))...)
	w.is(ack, dhcpv4.MessageTypeAck, a)
	return a
}

// is checks an answer; typ MessageTypeNone means silence.
func (w *world) is(m *dhcpv4.DHCPv4, typ dhcpv4.MessageType, a string) {
	w.t.Helper()
	switch {
	case m == nil && typ == dhcpv4.MessageTypeNone:
	case m == nil:
		w.t.Fatalf("silence instead of %s", typ)
	case m.MessageType() != typ:
		w.t.Fatalf("%s (%s) instead of %s", m.MessageType(), m.Message(), typ)
	case a != "" && m.YourIPAddr.String() != a:
		w.t.Fatalf("%s for %s instead of %s", typ, m.YourIPAddr, a)
	}
}

func (w *world) held() string {
	var s []string
	for _, l := range w.Leases() {
		s = append(s, l.Address.String()+"="+l.MAC.String()[15:])
	}
	return strings.Join(s, " ")
}

func TestOptions(t *testing.T) {
	cfg := testConfig()
	cfg.Fixed = []Fixed{{MAC: guest(7), Address: netip.MustParseAddr("10.0.0.5"), Hostname: "db"}}
	cfg.Names = map[mac.Addr]string{guest(1): "web", guest(7): "other", guest(2): "not a name"}
	w := newWorld(t, cfg)
	m := w.send(guest(1), dhcpv4.MessageTypeDiscover)
	w.is(m, dhcpv4.MessageTypeOffer, "10.0.0.2")
	mtu, _ := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options)
	for _, c := range []struct{ name, got, want string }{
		{"server", m.ServerIdentifier().String(), "10.0.0.1"},
		{"mask", net.IP(m.SubnetMask()).String(), "255.255.255.248"},
		{"broadcast", m.BroadcastAddress().String(), "10.0.0.7"},
		{"router", m.Router()[0].String(), "10.0.0.1"},
		{"name server", m.DNS()[0].String(), "192.0.2.53"},
		{"domain", m.DomainName(), "vm.internal"},
		{"host name", m.HostName(), "web"},
		{"lease", m.IPAddressLeaseTime(0).String(), "1h0m0s"},
		{"T1", m.IPAddressRenewalTime(0).String(), "30m0s"},
		{"T2", m.IPAddressRebindingTime(0).String(), "52m30s"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
	if mtu != 1450 || len(m.DNS()) != 1 {
		t.Errorf("MTU %d, name servers %v", mtu, m.DNS())
	}
	if n := len(m.ToBytes()); n > 576-28 {
		t.Errorf("%d bytes are more than every client takes", n)
	}
	if got := w.send(guest(7), dhcpv4.MessageTypeDiscover).HostName(); got != "db" {
		t.Errorf("host name of the fixed lease: %q", got)
	}
	if got := w.send(guest(2), dhcpv4.MessageTypeDiscover).HostName(); got != "" {
		t.Errorf("host name %q", got)
	}
}

func TestGive(t *testing.T) {
	w := newWorld(t, testConfig())
	if a := w.lease(guest(1)); a != "10.0.0.2" {
		t.Errorf("first address %s", a)
	}
	if a := w.lease(guest(2), asking("10.0.0.5")); a != "10.0.0.5" {
		t.Errorf("asked for 10.0.0.5, got %s", a)
	}
	for _, bad := range []string{"10.0.0.1", "10.0.0.0", "10.0.0.7", "10.0.0.2", "192.0.2.9"} {
		w.is(w.send(guest(3), dhcpv4.MessageTypeDiscover, asking(bad)), dhcpv4.MessageTypeOffer, "10.0.0.3")
	}
	if a := w.lease(guest(1)); a != "10.0.0.2" {
		t.Errorf("the same client got %s", a)
	}
	if got, want := w.held(), "10.0.0.2=01 10.0.0.5=02"; got != want {
		t.Errorf("held: %s, want %s (an offer is not a lease)", got, want)
	}
}

// TestRequest is RFC 2131, 4.3.2, for a client that has 10.0.0.2, one that has
// nothing, and a stranger's address.
func TestRequest(t *testing.T) {
	ack, nak, none := dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak, dhcpv4.MessageTypeNone
	for _, c := range []struct {
		name string
		mac  mac.Addr
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType
	}{
		{"reboot, its own", guest(1), []dhcpv4.Modifier{asking("10.0.0.2")}, ack},
		{"reboot, another subnet", guest(1), []dhcpv4.Modifier{asking("192.168.7.9")}, nak},
		{"reboot, another's", guest(9), []dhcpv4.Modifier{asking("10.0.0.2")}, nak},
		{"reboot, forgotten by us", guest(9), []dhcpv4.Modifier{asking("10.0.0.6")}, ack},
		{"renew", guest(1), []dhcpv4.Modifier{having("10.0.0.2")}, ack},
		{"renew, another's", guest(9), []dhcpv4.Modifier{having("10.0.0.2")}, nak},
		{"renew, forgotten by us", guest(9), []dhcpv4.Modifier{having("10.0.0.4")}, ack},
		{"renew, our own address", guest(9), []dhcpv4.Modifier{having("10.0.0.1")}, nak},
		{"select another server", guest(1), []dhcpv4.Modifier{asking("10.0.0.2"), of("10.0.0.99")}, none},
		{"select without an offer", guest(9), []dhcpv4.Modifier{asking("10.0.0.4"), of("10.0.0.1")}, nak},
		{"nothing asked", guest(9), nil, nak},
	} {
		w := newWorld(t, testConfig())
		w.lease(guest(1))
		got := w.send(c.mac, dhcpv4.MessageTypeRequest, c.mods...)
		switch {
		case got == nil && c.want == none:
		case got == nil || got.MessageType() != c.want:
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		case c.want == nak && !got.IsBroadcast():
			t.Errorf("%s: the refusal goes to an address that is wrong", c.name)
		}
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t, testConfig())
	for n := byte(1); n <= 5; n++ { // .2 to .6
		w.lease(guest(n))
		w.clock = w.clock.Add(time.Minute)
	}
	w.is(w.send(guest(9), dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeNone, "")
	w.is(w.send(guest(8), dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeNone, "")
	if n := strings.Count(w.log.String(), "all addresses of 10.0.0.0/29 are in use"); n != 1 {
		t.Errorf("exhaustion logged %d times within a minute:\n%s", n, w.log.String())
	}
	// The first two end; the longer ended goes first.
	w.clock = w.clock.Add(time.Hour - 4*time.Minute + time.Second)
	if got, want := w.held(), "10.0.0.4=03 10.0.0.5=04 10.0.0.6=05"; got != want {
		t.Errorf("held: %s, want %s", got, want)
	}
	w.is(w.send(guest(3), dhcpv4.MessageTypeRequest, having("10.0.0.4")), dhcpv4.MessageTypeAck, "10.0.0.4")
	if a := w.lease(guest(9)); a != "10.0.0.2" {
		t.Errorf("the address that ended first is 10.0.0.2, got %s", a)
	}
	// Its former client finds it taken, and gets the other one.
	w.is(w.send(guest(1), dhcpv4.MessageTypeRequest, having("10.0.0.2")), dhcpv4.MessageTypeNak, "")
	if a := w.lease(guest(1)); a != "10.0.0.3" {
		t.Errorf("got %s", a)
	}
	// An offer that nobody takes comes free.
	w.clock = w.clock.Add(2 * time.Hour)
	w.is(w.send(guest(20), dhcpv4.MessageTypeDiscover, asking("10.0.0.6")), dhcpv4.MessageTypeOffer, "10.0.0.6")
	w.is(w.send(guest(21), dhcpv4.MessageTypeRequest, asking("10.0.0.6")), dhcpv4.MessageTypeNak, "")
	w.clock = w.clock.Add(offerTime)
	w.is(w.send(guest(21), dhcpv4.MessageTypeRequest, asking("10.0.0.6")), dhcpv4.MessageTypeAck, "10.0.0.6")
}

func TestReleaseDecline(t *testing.T) {
	w := newWorld(t, testConfig())
	w.lease(guest(1))
	w.lease(guest(2))
	w.send(guest(2), dhcpv4.MessageTypeRelease, having("10.0.0.2")) // not his
	w.send(guest(2), dhcpv4.MessageTypeDecline, asking("10.0.0.2")) // not his
	if got, want := w.held(), "10.0.0.2=01 10.0.0.3=02"; got != want {
		t.Fatalf("held: %s, want %s", got, want)
	}
	w.send(guest(1), dhcpv4.MessageTypeRelease, having("10.0.0.2"))
	if got, want := w.held(), "10.0.0.3=02"; got != want {
		t.Errorf("after the release: %s, want %s", got, want)
	}
	// Others get fresh addresses first, so the client finds its own again.
	if a := w.lease(guest(3)); a != "10.0.0.4" {
		t.Errorf("got %s", a)
	}
	if a := w.lease(guest(1)); a != "10.0.0.2" {
		t.Errorf("came back to %s", a)
	}
	w.send(guest(1), dhcpv4.MessageTypeDecline, asking("10.0.0.2"))
	if !strings.Contains(w.log.String(), "declined") {
		t.Error("a decline is not logged")
	}
	if a := w.lease(guest(1)); a != "10.0.0.5" {
		t.Errorf("after the decline %s", a)
	}
	w.is(w.send(guest(5), dhcpv4.MessageTypeDiscover, asking("10.0.0.2")), dhcpv4.MessageTypeOffer, "10.0.0.6")
	// The last one: rather an address that was declined than none.
	w.is(w.send(guest(6), dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeOffer, "10.0.0.2")
}

func TestFixed(t *testing.T) {
	cfg := testConfig()
	w := newWorld(t, cfg)
	w.lease(guest(1)) // 10.0.0.2
	w.lease(guest(2)) // 10.0.0.3
	cfg.Fixed = []Fixed{{MAC: guest(2), Address: netip.MustParseAddr("10.0.0.2")}, {MAC: guest(9), Address: netip.MustParseAddr("10.0.0.4")}}
	if err := w.Update(cfg); err != nil {
		t.Fatal(err)
	}
	// Still held by another: he keeps it until he renews, and is told then.
	w.is(w.send(guest(2), dhcpv4.MessageTypeRequest, having("10.0.0.3")), dhcpv4.MessageTypeAck, "10.0.0.3")
	w.is(w.send(guest(1), dhcpv4.MessageTypeRequest, having("10.0.0.2")), dhcpv4.MessageTypeNak, "")
	if a := w.lease(guest(1)); a != "10.0.0.5" {
		t.Errorf("got %s; .3 is held, .4 is reserved", a)
	}
	w.is(w.send(guest(2), dhcpv4.MessageTypeRequest, having("10.0.0.3")), dhcpv4.MessageTypeNak, "")
	if a := w.lease(guest(2)); a != "10.0.0.2" {
		t.Errorf("got %s instead of the reserved address", a)
	}
	if a := w.lease(guest(9)); a != "10.0.0.4" {
		t.Errorf("got %s instead of the reserved address", a)
	}
	for _, l := range w.Leases() {
		if want := l.MAC != guest(1); l.Fixed != want {
			t.Errorf("%s fixed: %v", l.Address, l.Fixed)
		}
	}
}

func TestPersist(t *testing.T) {
	w := newWorld(t, testConfig())
	w.lease(guest(1), dhcpv4.WithOption(dhcpv4.OptHostName("web-1")))
	w.lease(guest(2), dhcpv4.WithOption(dhcpv4.OptHostName("-bad name-")))
	w.send(guest(3), dhcpv4.MessageTypeDiscover) // offered only
	w.restart(testConfig())
	ls := w.Leases()
	if got, want := w.held(), "10.0.0.2=01 10.0.0.3=02"; got != want {
		t.Fatalf("after a restart: %s, want %s", got, want)
	}
	if ls[0].Hostname != "web-1" || ls[1].Hostname != "" {
		t.Errorf("host names %q, %q", ls[0].Hostname, ls[1].Hostname)
	}
	if a := w.lease(guest(9)); a != "10.0.0.4" {
		t.Errorf("a new client got %s", a)
	}

	// An address that moved to another client stays with him after a restart.
	w.clock = w.clock.Add(2 * time.Hour)
	w.is(w.send(guest(7), dhcpv4.MessageTypeRequest, asking("10.0.0.2")), dhcpv4.MessageTypeAck, "10.0.0.2")
	w.restart(testConfig())
	if got, want := w.held(), "10.0.0.2=07"; got != want {
		t.Errorf("after the move: %s, want %s", got, want)
	}

	// Another subnet: the old leases are worth nothing and leave the store.
	cfg := testConfig()
	cfg.Subnet = netip.MustParsePrefix("10.9.0.1/24")
	w.restart(cfg)
	if left, _ := w.store.Load("net"); len(left) != 0 {
		t.Errorf("left in the store: %v", left)
	}
}

// TestStoreFails: guests keep their network when the data volume is full.
func TestStoreFails(t *testing.T) {
	w := newWorld(t, testConfig())
	w.store.fail = errors.New("no space left")
	if a := w.lease(guest(1)); a != "10.0.0.2" {
		t.Errorf("got %q", a)
	}
	if !strings.Contains(w.log.String(), "lease not stored") {
		t.Errorf("log: %s", w.log.String())
	}
}

func TestInform(t *testing.T) {
	w := newWorld(t, testConfig())
	m := w.send(guest(1), dhcpv4.MessageTypeInform, having("10.0.0.6"))
	w.is(m, dhcpv4.MessageTypeAck, "0.0.0.0")
	if m.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || len(m.DNS()) != 1 || len(w.Leases()) != 0 {
		t.Errorf("%s", m.Summary())
	}
	w.is(w.send(guest(1), dhcpv4.MessageTypeInform, having("192.0.2.6")), dhcpv4.MessageTypeNone, "")
}

func TestForged(t *testing.T) {
	w := newWorld(t, testConfig())
	for _, c := range []struct {
		name string
		mod  dhcpv4.Modifier
	}{
		{"relayed", dhcpv4.WithGatewayIP(net.IPv4(10, 0, 0, 5))},
		{"reply", func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }},
		{"no hardware address", dhcpv4.WithHwAddr(nil)},
		{"long hardware address", dhcpv4.WithHwAddr(make(net.HardwareAddr, 16))},
		{"multicast hardware address", dhcpv4.WithHwAddr(net.HardwareAddr{1, 2, 3, 4, 5, 6})},
		{"Token Ring", dhcpv4.WithHWType(6)},
		{"no type", dhcpv4.WithMessageType(dhcpv4.MessageTypeNone)},
		{"an offer", dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)},
	} {
		if m := w.send(guest(1), dhcpv4.MessageTypeDiscover, c.mod); m != nil {
			t.Errorf("%s: answered with %s", c.name, m.MessageType())
		}
	}
}

// TestRange: of the subnet only a part is given, except to those with a fixed
// address, and the router keeps its own.
func TestRange(t *testing.T) {
	cfg := testConfig()
	cfg.First, cfg.Last = netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.5")
	cfg.Router, cfg.Gateway = false, netip.MustParseAddr("10.0.0.4")
	cfg.Fixed = []Fixed{{MAC: guest(7), Address: netip.MustParseAddr("10.0.0.6")}}
	w := newWorld(t, cfg)
	if a := w.lease(guest(1), asking("10.0.0.2")); a != "10.0.0.3" {
		t.Errorf("asked for an address outside of the range, got %q", a)
	}
	for m, want := range map[mac.Addr]string{guest(2): "10.0.0.5", guest(7): "10.0.0.6"} {
		if a := w.lease(m); a != want {
			t.Errorf("%s got %q, want %s", m, a, want)
		}
	}
	w.is(w.send(guest(3), dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeNone, "")
	w.is(w.send(guest(4), dhcpv4.MessageTypeRequest, asking("10.0.0.2")), dhcpv4.MessageTypeNak, "")
	if r := w.send(guest(1), dhcpv4.MessageTypeDiscover).Router(); len(r) != 1 || r[0].String() != "10.0.0.4" {
		t.Errorf("router %v", r)
	}
}

// picky is a Hook that serves one client and tells it a file.
type picky struct{ only mac.Addr }

func (p picky) Admit(req *dhcpv4.DHCPv4) bool { return mac.Addr(req.ClientHWAddr) == p.only }

func (p picky) Amend(_, resp *dhcpv4.DHCPv4) { resp.BootFileName = "file" }

func TestHook(t *testing.T) {
	cfg := testConfig()
	cfg.Hook = picky{guest(1)}
	w := newWorld(t, cfg)
	for typ, mods := range map[dhcpv4.MessageType][]dhcpv4.Modifier{
		dhcpv4.MessageTypeDiscover: nil,
		dhcpv4.MessageTypeRequest:  {asking("10.0.0.2")},
		dhcpv4.MessageTypeInform:   {having("10.0.0.2")},
	} {
		m := w.send(guest(1), typ, mods...)
		if m == nil || m.BootFileName != "file" {
			t.Errorf("%s: %v", typ, m)
		}
		w.is(w.send(guest(2), typ, mods...), dhcpv4.MessageTypeNone, "")
	}
	if m := w.send(guest(1), dhcpv4.MessageTypeRequest, asking("192.0.2.1")); m.MessageType() != dhcpv4.MessageTypeNak || m.BootFileName != "" {
		t.Errorf("a refusal with a file: %s", m.Summary())
	}
}

// TestFlood: a guest that invents clients cannot make the tables grow.
func TestFlood(t *testing.T) {
	cfg := testConfig()
	cfg.Subnet = netip.MustParsePrefix("10.0.0.1/24")
	w := newWorld(t, cfg)
	w.lease(guest(1))
	for i := range 5000 {
		m := mac.Addr{2, 0, 0, 0, byte(i >> 8), byte(i)}
		if w.send(m, dhcpv4.MessageTypeDiscover) != nil && i%2 == 0 {
			w.send(m, dhcpv4.MessageTypeDecline, asking(w.pool.byMAC[m].Address.String()))
		}
	}
	if n := len(w.pool.byMAC) + len(w.pool.declined); n > 256 {
		t.Errorf("%d records", n)
	}
	w.is(w.send(guest(1), dhcpv4.MessageTypeRequest, having("10.0.0.2")), dhcpv4.MessageTypeAck, "10.0.0.2")
}

func TestCheck(t *testing.T) {
	fixed := func(fs ...Fixed) Config { c := testConfig(); c.Fixed = fs; return c }
	subnet := func(s string) Config { c := testConfig(); c.Subnet = netip.MustParsePrefix(s); return c }
	ranged := func(first, last string) Config {
		c := testConfig()
		c.First, _ = netip.ParseAddr(first)
		c.Last, _ = netip.ParseAddr(last)
		return c
	}
	gateway := func(a string, router bool) Config {
		c := testConfig()
		c.Gateway, c.Router = netip.MustParseAddr(a), router
		return c
	}
	at := func(n byte, a string) Fixed { return Fixed{MAC: guest(n), Address: netip.MustParseAddr(a)} }
	for _, c := range []struct {
		name string
		cfg  Config
		bad  bool
	}{
		{"fine", fixed(at(1, "10.0.0.2"), at(2, "10.0.0.3")), false},
		{"no room", subnet("10.0.0.0/31"), true},
		{"too much room", subnet("10.0.0.1/8"), true},
		{"IPv6", subnet("2001:db8::1/64"), true},
		{"fixed elsewhere", fixed(at(1, "10.0.1.2")), true},
		{"fixed is the server", fixed(at(1, "10.0.0.1")), true},
		{"fixed is broadcast", fixed(at(1, "10.0.0.7")), true},
		{"one address twice", fixed(at(1, "10.0.0.2"), at(2, "10.0.0.2")), true},
		{"one MAC twice", fixed(at(1, "10.0.0.2"), at(1, "10.0.0.3")), true},
		{"fixed without a MAC", fixed(Fixed{Address: netip.MustParseAddr("10.0.0.2")}), true},
		{"a range", ranged("10.0.0.3", "10.0.0.4"), false},
		{"half a range", ranged("10.0.0.3", ""), true},
		{"range backwards", ranged("10.0.0.4", "10.0.0.3"), true},
		{"range elsewhere", ranged("10.0.0.3", "10.0.1.4"), true},
		{"gateway elsewhere", gateway("10.0.1.1", false), true},
		{"two routers", gateway("10.0.0.6", true), true},
		{"gateway", gateway("10.0.0.6", false), false},
		{"bad host name", fixed(Fixed{MAC: guest(1), Address: netip.MustParseAddr("10.0.0.2"), Hostname: "a b"}), true},
	} {
		err := c.cfg.Check()
		if c.bad != (err != nil) || c.bad && qverr.CodeOf(err) != qverr.NetDHCP {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Who boots from the network learns what and where; others do not.
func TestBoot(t *testing.T) {
	pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	for _, c := range []struct {
		name   string
		boot   Boot
		mods   []dhcpv4.Modifier
		file   string
		server string
	}{
		{"nothing to boot", Boot{}, []dhcpv4.Modifier{pxe}, "", "10.0.0.1"},
		{"the node's file", Boot{File: "start.ipxe"}, []dhcpv4.Modifier{pxe}, "start.ipxe", "10.0.0.1"},
		{"another server", Boot{File: "a/pxelinux.0", Server: netip.MustParseAddr("10.0.0.5")}, []dhcpv4.Modifier{pxe}, "a/pxelinux.0", "10.0.0.5"},
		{"another client", Boot{File: "start.ipxe"}, nil, "", "10.0.0.1"},
	} {
		cfg := testConfig()
		cfg.Boot = c.boot
		w := newWorld(t, cfg)
		offer := w.send(guest(1), dhcpv4.MessageTypeDiscover, c.mods...)
		w.is(offer, dhcpv4.MessageTypeOffer, "")
		if offer.BootFileName != c.file || offer.BootFileNameOption() != c.file || offer.ServerIPAddr.String() != c.server {
			t.Errorf("%s: file %q (%q), server %s", c.name, offer.BootFileName, offer.BootFileNameOption(), offer.ServerIPAddr)
		}
		if want := map[bool]string{true: c.server}[c.file != ""]; offer.TFTPServerName() != want {
			t.Errorf("%s: TFTP server %q", c.name, offer.TFTPServerName())
		}
	}
	for _, b := range []Boot{{File: strings.Repeat("x", 128)}, {File: "a b"}, {Server: netip.MustParseAddr("10.0.0.5")}, {File: "f", Server: netip.MustParseAddr("::1")}} {
		cfg := testConfig()
		cfg.Boot = b
		if err := cfg.Check(); !errors.Is(err, qverr.NetDHCP) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
