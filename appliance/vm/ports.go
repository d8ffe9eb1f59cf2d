package vm

import (
	"context"
	"strconv"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/config"
	"quantavirt/hv/limit"
	"quantavirt/hv/vmm"
	"quantavirt/netstack"
)

// addPorts makes the TAP devices of a VM's network cards.
func (s *Service) addPorts(ctx context.Context, m *machine, plan *vmm.Spec) error {
	for i := range m.rec.Config.Network {
		if err := s.addPort(ctx, &m.rec.Config, i, plan); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) addPort(ctx context.Context, c *spec.VMConfig, i int, plan *vmm.Spec) error {
	n := &c.Network[i]
	port := netstack.Port{ID: portOf(c, i), MTU: n.MTU, Queues: n.Queues, Hostname: c.Name}
	if err := port.MAC.UnmarshalText([]byte(macOf(c, i))); err != nil {
		return err
	}
	queues, _, err := s.Network.AddPort(ctx, n.Network, port)
	if err != nil {
		return err
	}
	id := "nic" + strconv.Itoa(i)
	nic := config.NIC{ID: id, TAP: id, Queues: n.Queues, MAC: macOf(c, i), MTU: n.MTU}
	for i, name := range nic.TAPs() {
		plan.Files[name] = queues[i]
	}
	if nic.MTU == 0 {
		if network, err := s.Network.Get(n.Network); err == nil {
			nic.MTU = network.MTU
		}
	}
	nic.Limits = bandwidthOf(n)
	// The kernel's way has no limits.
	if nic.Limits == (limit.Limits{}) {
		if err := addVhost(&nic, plan); err != nil {
			return err
		}
	}
	plan.Machine.NICs = append(plan.Machine.NICs, nic)
	return nil
}

// bandwidthOf is the limit of a network card, of each direction by itself.
func bandwidthOf(n *spec.NICConfig) limit.Limits {
	return limit.Limits{Bytes: limit.Rate{PerSecond: uint64(n.Bandwidth)}}
}

// addVhost has the kernel move the packets of nic, where it can.
func addVhost(nic *config.NIC, plan *vmm.Spec) error {
	nic.Vhost = nic.ID + "-vhost"
	for _, name := range nic.Vhosts() {
		f, err := openDevice("/dev/vhost-net")
		if err != nil {
			return err
		}
		if f == nil {
			nic.Vhost = ""
			return nil
		}
		plan.Files[name] = f
	}
	return nil
}
