package netstack

import (
	"context"
	"errors"
	"os"

	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/bridge"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/tap"
)

// port is a TAP device of ours as the kernel has it, whoever made it.
type port struct {
	tap.Owner
	tap    string
	master string // bridge; empty: none
	link   netlink.Link
}

func ports() ([]port, error) {
	links, err := rtnl.Links()
	if err != nil {
		return nil, qverr.New(qverr.NetTAP, "list TAP devices: %w", err)
	}
	name := make(map[int]string, len(links))
	for _, l := range links {
		name[l.Attrs().Index] = l.Attrs().Name
	}
	var out []port
	for _, l := range links {
		if o, ok := tap.OwnerOf(l); ok {
			out = append(out, port{o, l.Attrs().Name, name[l.Attrs().MasterIndex], l})
		}
	}
	return out, nil
}

// attach puts the ports of a network back on its bridge, which may be a new one.
func attach(n Network, all []port) error {
	var errs []error
	for _, p := range all {
		if p.Network != n.ID || p.master == n.Bridge {
			continue
		}
		if _, err := bridge.Attach(p.link, n.Bridge); err != nil && !rtnl.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// names are the host names of a network's ports.
func names(networkID string, all []port) map[MAC]string {
	out := make(map[MAC]string)
	for _, p := range all {
		if p.Network == networkID && p.Hostname != "" {
			out[p.MAC] = p.Hostname
		}
	}
	return out
}

// AddPort makes the TAP device of a port and attaches it to the bridge of the
// network. The returned files, one for each queue, are the only thing that keeps the
// device: it goes away with the last copy of the descriptors, so the caller passes
// them to the VM process and closes them. The device has IFF_VNET_HDR set with the 12 byte
// header of virtio 1.0; offloads are off until the VM process
// sets them. Errors: QV_ERR_NOENT for an unknown network, QV_NET_ERR_MAC,
// QV_NET_ERR_MTU, QV_NET_ERR_TAP, or the problem of a network that is not ready.
func (m *Manager) AddPort(ctx context.Context, network string, p Port) (queues []*os.File, name string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := p.MAC.Check(); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(network)
	if err != nil {
		return nil, "", err
	}
	if n.problem != nil { // it may be over by now
		if err := m.reconcile(); err != nil && n.problem != nil {
			return nil, "", n.problem
		}
	}
	if p.MTU == 0 {
		p.MTU = n.MTU
	}
	if p.MTU > n.MTU {
		return nil, "", qverr.New(qverr.NetMTU, "MTU %d of port %s is larger than %d of network %s", p.MTU, p.ID, n.MTU, n.Name)
	}
	all, err := ports()
	if err != nil {
		return nil, "", err
	}
	for _, o := range all {
		if o.MAC == p.MAC && o.PortID != p.ID {
			return nil, "", qverr.New(qverr.NetMAC, "MAC address %s is in use by port %s", p.MAC, o.PortID)
		}
	}
	name = TAPName(p.ID)
	owner := tap.Owner{PortID: p.ID, Network: n.ID, MAC: p.MAC, Hostname: p.Hostname}
	queues, err = tap.Create(tap.Config{Name: name, Bridge: n.Bridge, MTU: p.MTU, Queues: p.Queues, Owner: owner})
	if err != nil {
		return nil, "", err
	}
	if n.server != nil && p.Hostname != "" {
		if err := n.server.Update(dhcpConfig(n.Network, m.dns, names(n.ID, append(all, port{Owner: owner})))); err != nil {
			m.log.Warn("host name not offered", "port", p.ID, "err", err)
		}
	}
	return queues, name, nil
}

// RemovePort removes the TAP device of a port if it is still there. It is
// needed only when the VM process cannot be trusted to be gone.
func (m *Manager) RemovePort(ctx context.Context, network, portID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(network); err != nil {
		return err
	}
	return tap.Remove(TAPName(portID))
}
