package network

import (
	"net/netip"
	"testing"

	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
	"quantavirt/netstack/uplink"
)

func TestConfigure(t *testing.T) {
	good := nodeconfig.Network{Path: "networks[0]", Name: "lab", Subnet: netip.MustParsePrefix("10.9.0.1/24"), DHCP: true}
	static := nodeconfig.Management{Mode: nodeconfig.Static, Interface: "eth1", Address: netip.MustParsePrefix("192.0.2.7/24"), MTU: 1400}
	onTop := good
	onTop.Path, onTop.Name, onTop.Subnet = "networks[1]", "default2", netip.MustParsePrefix("192.168.200.9/24")
	twice := good
	twice.Path, twice.Subnet = "networks[2]", netip.MustParsePrefix("10.10.0.1/24")
	broadcast := static
	broadcast.Address = netip.MustParsePrefix("192.0.2.255/24")
	for _, c := range []struct {
		name     string
		m        nodeconfig.Management
		nets     []nodeconfig.Network
		ip       string
		mode     uplink.Mode
		networks int
		wrong    []string
	}{
		{"nothing", nodeconfig.Management{}, nil, "", "", 1, nil},
		{"all", static, []nodeconfig.Network{good}, "", uplink.StaticMode, 2, nil},
		{"the command line overrides the address", static, nil, "dhcp", "", 1, nil},
		{"overlap with default, same name", static, []nodeconfig.Network{good, onTop, twice}, "", uplink.StaticMode, 2, []string{"networks[1]", "networks[2]"}},
		{"broadcast address", broadcast, []nodeconfig.Network{good}, "", "", 2, []string{"management"}},
	} {
		k := &stack{}
		s, db := testService(t, k)
		errs := s.Configure(c.m, c.nets)
		if err := s.Start(t.Context(), db, map[string]string{"ip": c.ip}); err != nil {
			t.Fatal(err)
		}
		if k.state.Uplink.Mode != c.mode || len(k.state.Networks) != c.networks || len(errs) != len(c.wrong) {
			t.Errorf("%s: %+v, %v", c.name, k.state, errs)
			continue
		}
		if c.ip == "dhcp" && k.state.Uplink.Interface != "eth1" {
			t.Errorf("%s: the interface is lost: %+v", c.name, k.state.Uplink)
		}
		for i, err := range errs {
			if e := qverr.From(err); e.Code != qverr.Config || e.Details["path"] != c.wrong[i] {
				t.Errorf("%s: %v at %v", c.name, err, e.Details)
			}
		}
	}
}
