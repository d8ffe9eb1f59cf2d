package network

import (
	"github.com/google/uuid"

	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

// Configure says what the next Start wants: the management network and the
// networks of the node's configuration, beside the default one. What cannot be
// is left out and returned, each with its place in the configuration.
func (s *Service) Configure(m nodeconfig.Management, nets []nodeconfig.Network) []error {
	var errs []error
	wrong := func(path string, err error) {
		errs = append(errs, qverr.New(qverr.Config, "%s: %w", path, err).With("path", path))
	}
	want := netstack.State{Networks: []netstack.Network{netstack.DefaultNetwork()}}
	up := want
	up.Uplink = netstack.UplinkConfig{Mode: uplink.Mode(m.Mode), Interface: m.Interface, MTU: m.MTU}
	if m.Mode == nodeconfig.Static {
		up.Uplink.Static = uplink.Static{Address: m.Address, Gateway: m.Gateway, DNS: m.DNS}
	}
	if err := up.Check(); err != nil {
		wrong("management", err)
	} else {
		want = up
	}
	for _, n := range nets {
		more := want
		more.Networks = append(more.Networks[:len(more.Networks):len(more.Networks)], network(n))
		if err := more.Check(); err != nil {
			wrong(n.Path, err)
		} else {
			want = more
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = want
	return errs
}

// network is a configured network with the id that its name gives it: the same
// at every boot.
func network(n nodeconfig.Network) netstack.Network {
	var boot *netstack.Boot
	if n.BootFile != "" {
		boot = &netstack.Boot{File: n.BootFile, Server: n.BootServer, Files: n.BootImages}
	}
	return netstack.Network{
		Name: n.Name, ID: uuid.NewSHA1(uuid.Nil, []byte("quantavirt network "+n.Name)).String(),
		Subnet: n.Subnet, DHCP: n.DHCP, NAT: n.NAT, MTU: n.MTU, DNS: n.DNS, Domain: n.Domain,
		Boot: boot,
	}
}
