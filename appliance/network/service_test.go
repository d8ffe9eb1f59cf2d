package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

// stack is a kernel network that does what it is told.
type stack struct {
	mu        sync.Mutex
	connected netstack.UplinkConfig
	state     netstack.State
	fail      error
	status    netstack.Status
	leases    []netstack.Lease
	answers   []*dhcpv4.DHCPv4
}

func (s *stack) Connect(c netstack.UplinkConfig) error { s.connected = c; return nil }
func (s *stack) Apply(_ context.Context, state netstack.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	s.status.Networks = nil
	for _, n := range state.Networks {
		s.status.Networks = append(s.status.Networks, netstack.NetworkStatus{Network: n, Ready: s.fail == nil})
	}
	return s.fail
}
func (s *stack) Settled(context.Context) (netstack.UplinkStatus, error) { return s.status.Uplink, nil }
func (s *stack) AddPort(context.Context, string, netstack.Port) ([]*os.File, string, error) {
	return nil, "", nil
}
func (s *stack) RemovePort(context.Context, string, string) error { return nil }
func (s *stack) Leases(string) ([]netstack.Lease, error)          { return s.leases, nil }
func (s *stack) Uplink() netstack.UplinkStatus                    { return s.Status().Uplink }
func (s *stack) Status() netstack.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}
func (s *stack) Close() error { return nil }
func (s *stack) Inform(_ context.Context, options []dhcpv4.Option, match func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.answers {
		if match(m) {
			return m, nil
		}
	}
	return nil, qverr.New(qverr.Timeout, "nobody answers")
}

func testService(t *testing.T, k Stack) (*Service, *store.DB) {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := New(Options{Log: slog.New(slog.DiscardHandler), Off: true})
	s.stack = k
	return s, db
}

func TestStart(t *testing.T) {
	for _, c := range []struct {
		ip   string
		mode uplink.Mode
		code qverr.Code
	}{
		{"", "", 0}, {"dhcp", "", 0}, {"192.0.2.7/24,192.0.2.1,192.0.2.2", uplink.StaticMode, 0}, {"hello", "", qverr.Inval},
	} {
		k := &stack{}
		s, db := testService(t, k)
		changes := 0
		s.OnChange(func() { changes++ })
		options := map[string]string{"ip": c.ip}
		s.Connect(options)
		err := s.Start(t.Context(), db, options)
		if qverr.CodeOf(err) != c.code || k.connected.Mode != c.mode || !reflect.DeepEqual(k.connected, k.state.Uplink) || changes == 0 {
			t.Errorf("ip=%s: %v, mode %q, %d changes", c.ip, err, k.state.Uplink.Mode, changes)
		}
		if len(k.state.Networks) != 1 || k.state.Networks[0].Name != "default" {
			t.Errorf("networks %+v", k.state.Networks)
		}
		if got := s.Uplink(); got.State != spec.UplinkInfoStateDown || (got.Problem.Code != 0) != (c.code != 0) {
			t.Errorf("ip=%s: uplink %+v", c.ip, got)
		}
	}
}

func TestUplinkAndNetworks(t *testing.T) {
	k := &stack{fail: qverr.New(qverr.NetNAT, "no table")}
	k.status.Uplink = netstack.UplinkStatus{State: uplink.Up, Mode: uplink.DHCP, Interface: "eth0",
		Address: netip.MustParsePrefix("192.0.2.7/24"), Gateway: netip.MustParseAddr("192.0.2.1")}
	s, db := testService(t, k)
	if err := s.Start(t.Context(), db, nil); !errors.Is(err, qverr.NetNAT) {
		t.Fatal(err)
	}
	u := s.Uplink()
	if u.State != spec.UplinkInfoStateUp || u.Addresses[0] != "192.0.2.7/24" || u.Problem.Name != "QV_NET_ERR_NAT" {
		t.Errorf("%+v", u)
	}
	if a, ok := s.Address(); !ok || a.String() != "192.0.2.7" {
		t.Errorf("%v, %v", a, ok)
	}
	n, err := s.Get("default")
	if err != nil || n.Subnet != "192.168.200.0/24" || n.Gateway != "192.168.200.1" || n.Bridge != "qvbr0" || n.Ready {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := s.Get("other"); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
	if _, err := s.Leases("other"); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
}

func TestLeases(t *testing.T) {
	mac := netstack.MAC{2, 0, 0, 0, 0, 1}
	k := &stack{leases: []netstack.Lease{
		{MAC: mac, Address: netip.MustParseAddr("192.168.200.10"), Hostname: "web", Expires: time.Now().Add(time.Hour)},
		{MAC: mac, Address: netip.MustParseAddr("192.168.200.11"), Expires: time.Now().Add(-time.Hour)},
	}}
	s, db := testService(t, k)
	if err := s.Start(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	s.NameVMs(func(m string) string { return map[string]string{mac.String(): "web"}[m] })
	got, err := s.Leases("default")
	if err != nil || len(got) != 2 || got[0].VM != "web" || got[0].Address != "192.168.200.10" {
		t.Errorf("%+v, %v", got, err)
	}
	if a := s.AddressesOf("default", mac.String()); len(a) != 1 || a[0] != "192.168.200.10" {
		t.Errorf("addresses %v", a)
	}

	kept := leases{db}
	other := netstack.MAC{2, 0, 0, 0, 0, 2}
	for _, err := range []error{kept.Save("n1", k.leases[0]), kept.Save("n2", netstack.Lease{MAC: other}), kept.Save("n1", k.leases[0])} {
		if err != nil {
			t.Fatal(err)
		}
	}
	one, err := kept.Load("n1")
	if err != nil || len(one) != 1 || one[0].Address != k.leases[0].Address || !one[0].Expires.Equal(k.leases[0].Expires) {
		t.Errorf("%+v, %v", one, err)
	}
	if err := kept.Delete("n1", mac); err != nil {
		t.Error(err)
	}
	if none, _ := kept.Load("n1"); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestOff(t *testing.T) {
	s, db := testService(t, nil)
	s.stack = nil
	s.Connect(nil)
	if err := s.Start(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Get("default"); err != nil || n.Ready || n.Problem.Code == 0 {
		t.Errorf("%+v, %v", n, err)
	}
	if _, _, err := s.AddPort(t.Context(), "default", netstack.Port{}); !errors.Is(err, qverr.NetBridge) {
		t.Error(err)
	}
	if err := s.RemovePort(t.Context(), "default", "x"); err != nil {
		t.Error(err)
	}
	if u := s.Uplink(); u.State != spec.UplinkInfoStateOff {
		t.Errorf("%+v", u)
	}
}
