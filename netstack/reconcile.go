package netstack

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/bridge"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/nat"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/tap"
	"quantavirt/netstack/uplink"
)

// reconcile makes the kernel what state says, as far as it is not so already.
// Rules come first: a bridge without them would be open. mu is held.
func (m *Manager) reconcile() error {
	m.learnUplink()
	rulesErr := m.reconcileRules()
	all, err := ports()
	errs := []error{rulesErr, err}
	wanted := make(map[string]bool)
	for _, want := range m.state.Networks {
		wanted[want.ID] = true
		n := m.nets[want.ID]
		if n == nil {
			n = &network{}
			m.nets[want.ID] = n
		}
		err := rulesErr
		if err == nil {
			err = m.reconcileNetwork(n, want, all)
		}
		n.Network = want
		m.report(n, err)
		errs = append(errs, err)
	}
	errs = append(errs, m.removeOthers(wanted))
	if len(wanted) == 0 {
		errs = append(errs, nat.Remove()) // after the bridges that it closed
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// learnUplink takes over what the uplink says about itself, and reports whether
// that is new; while it is down the last known values stay.
func (m *Manager) learnUplink() bool {
	st := m.up.Status()
	oldIf, oldNet, oldDNS := m.upIf, m.upNet, m.dns
	if st.Interface != "" {
		m.upIf = st.Interface
	}
	switch st.State {
	case uplink.Up:
		m.upNet, m.dns = st.Address, st.DNS
	case uplink.None:
		m.upIf, m.dns = "", nil
	}
	return m.upIf != oldIf || m.upNet != oldNet || !slices.Equal(m.dns, oldDNS)
}

func (m *Manager) reconcileRules() error {
	if len(m.state.Networks) == 0 {
		return nil
	}
	cfg := nat.Config{Uplink: m.upIf}
	for _, n := range m.state.Networks {
		cfg.Networks = append(cfg.Networks, nat.Network{Bridge: n.Bridge, Subnet: n.Subnet, DHCP: n.DHCP, NAT: n.NAT, TFTP: n.Boot.local()})
	}
	changed, err := nat.Apply(cfg)
	if changed {
		m.log.Info("packet rules applied", "uplink", m.upIf, "networks", len(cfg.Networks))
	}
	return err
}

func (m *Manager) reconcileNetwork(n *network, want Network, all []port) error {
	cfg := bridge.Config{Name: want.Bridge, Network: want.Name, MAC: mac.ForBridge(want.ID), Address: want.Subnet, MTU: want.MTU}
	var conflict error
	if m.upNet.IsValid() && m.upNet.Overlaps(want.Subnet) {
		// The node must stay reachable, so the network gives way.
		conflict = qverr.New(qverr.NetCreate, "subnet %s of network %s overlaps the uplink's %s",
			want.Subnet.Masked(), want.Name, m.upNet.Masked()).WithHint("give the network another subnet")
		cfg.Address = netip.Prefix{}
	}
	index, changed, err := bridge.Ensure(cfg)
	if err != nil {
		return err
	}
	n.index = index
	if changed {
		m.log.Info("bridge configured", "network", want.Name, "bridge", want.Bridge, "address", cfg.Address.String())
	}
	if err := m.reconcileServer(n, want, index, conflict == nil, all); err != nil {
		return err
	}
	if err := m.reconcileTFTP(n, want, index, conflict == nil); err != nil {
		return err
	}
	return errors.Join(conflict, attach(want, all))
}

// reconcileServer starts, changes or stops the DHCP server of a network.
func (m *Manager) reconcileServer(n *network, want Network, index int, usable bool, all []port) error {
	cfg := dhcpConfig(want, m.dns, names(want.ID, all))
	if s := n.server; s != nil {
		fits := s.Index() == index && s.Alive() && n.Subnet == want.Subnet && n.Bridge == want.Bridge
		if want.DHCP && usable && fits {
			return s.Update(cfg)
		}
		n.stop()
	}
	if !want.DHCP || !usable {
		return nil
	}
	s, err := dhcp.New(cfg, m.opts.Leases, m.log.With("network", want.Name))
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	n.server = s
	return nil
}

// report records the state of a network and logs its changes.
func (m *Manager) report(n *network, err error) {
	old := n.problem
	n.problem = qverr.From(err)
	switch {
	case n.problem != nil && (old == nil || old.Message != n.problem.Message):
		m.log.Error("network not ready", "network", n.Name, "err", n.problem)
	case n.problem == nil && old != nil:
		m.log.Info("network ready again", "network", n.Name)
	default:
		return
	}
	m.wake(m.news)
}

// removeOthers removes the networks that are not wanted any more, and bridges
// that an earlier process made for such.
func (m *Manager) removeOthers(wanted map[string]bool) error {
	for id, n := range m.nets {
		if !wanted[id] {
			n.stop()
			delete(m.nets, id)
		}
	}
	keep := make(map[string]bool)
	for _, n := range m.state.Networks {
		keep[n.Bridge] = true
	}
	links, err := rtnl.Links()
	if err != nil {
		return qverr.New(qverr.NetBridge, "list bridges: %w", err)
	}
	var errs []error
	for _, name := range bridge.Ours(links) {
		if !keep[name] {
			m.log.Info("bridge removed", "bridge", name)
			errs = append(errs, bridge.Remove(name))
		}
	}
	return errors.Join(errs...)
}

// drifted reports whether links are not as the last reconcile left them: a
// bridge that is missing, new, down or too much, or a port without its bridge.
// mu is held.
func (m *Manager) drifted(links []netlink.Link) bool {
	have := make(map[string]netlink.Link, len(links))
	for _, l := range links {
		have[l.Attrs().Name] = l
	}
	wanted := make(map[string]bool)
	for _, n := range m.nets {
		wanted[n.Bridge] = true
		l := have[n.Bridge]
		if n.problem != nil || l == nil || l.Attrs().Index != n.index || !rtnl.IsUp(l) || l.Attrs().MTU != n.MTU {
			return true
		}
	}
	for _, name := range bridge.Ours(links) {
		if !wanted[name] {
			return true
		}
	}
	for _, l := range links {
		if o, ok := tap.OwnerOf(l); ok && m.nets[o.Network] != nil && l.Attrs().MasterIndex != m.nets[o.Network].index {
			return true
		}
	}
	return false
}

func (n *network) stop() {
	if n.server != nil {
		n.server.Close()
		n.server = nil
	}
	n.stopTFTP()
}
