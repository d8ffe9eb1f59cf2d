package config

import (
	"net"
	"strconv"

	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

// MaxPairs is how many pairs of queues a network device may have. Each costs two
// vectors of the 256 of MSI-X, and two descriptors of the 253 of a start.
const MaxPairs = 16

// NIC is one virtio-net device on a TAP.
type NIC struct {
	ID    string `json:"id"`
	TAP   string `json:"tap"`             // descriptor name
	Vhost string `json:"vhost,omitempty"` // descriptor name of /dev/vhost-net, "" to work in user space
	// Queues is the number of pairs of queues, 1 to 16; 0 means 1. Each has a queue of
	// the TAP of its own, and its own /dev/vhost-net: TAPs and Vhosts name them.
	Queues int    `json:"queues,omitempty"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu,omitempty"` // 0 means 1500
	// Limits hold for each direction by itself, and only in user space: with vhost-net
	// there are none.
	Limits limit.Limits `json:"limits,omitzero"`
}

// TAPs are the names of the TAP's descriptors, one for each pair of queues: that in
// TAP, and "NAME/1" and so on.
func (n *NIC) TAPs() []string { return n.perQueue(n.TAP) }

// Vhosts are the names of the descriptors of /dev/vhost-net, made alike; there is
// none when the device works in user space.
func (n *NIC) Vhosts() []string { return n.perQueue(n.Vhost) }

func (n *NIC) perQueue(name string) []string {
	if name == "" {
		return nil
	}
	names := []string{name}
	for i := 1; i < n.Queues; i++ {
		names = append(names, name+"/"+strconv.Itoa(i))
	}
	return names
}

func (m *Machine) validateNICs() error {
	if len(m.NICs) > MaxNICs {
		return bad("nics", "%d network devices: %d are possible", len(m.NICs), MaxNICs)
	}
	seen := map[string]bool{}
	for i, n := range m.NICs {
		if n.ID == "" || seen[n.ID] {
			return bad("nics.id", "network device %d has no id of its own (%q)", i, n.ID)
		}
		if n.TAP == "" {
			return bad("nics.tap", "network device %s names no TAP", n.ID)
		}
		if n.Queues < 0 || n.Queues > MaxPairs {
			return bad("nics.queues", "network device %s: %d pairs of queues: 1 to %d are possible", n.ID, n.Queues, MaxPairs)
		}
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return qverr.New(qverr.NetMAC, "network device %s: %q is no unicast MAC address", n.ID, n.MAC).With("path", "nics.mac")
		}
		if n.MTU != 0 && (n.MTU < MinMTU || n.MTU > MaxMTU) {
			return qverr.New(qverr.NetMTU, "network device %s: MTU %d: %d to %d are possible", n.ID, n.MTU, MinMTU, MaxMTU).With("path", "nics.mtu")
		}
		if err := n.Limits.Validate(); err != nil || n.Vhost != "" && n.Limits != (limit.Limits{}) {
			return bad("nics.limits", "network device %s: limits %+v, with vhost-net %v: %v", n.ID, n.Limits, n.Vhost != "", err)
		}
		seen[n.ID] = true
	}
	return nil
}
