package net

import (
	"encoding/binary"
	"fmt"

	"quantavirt/hv/virtio"
)

// Classes and commands of the control queue, section 5.1.6.5.
const (
	classRX       = 0
	classMAC      = 1
	classAnnounce = 3
	classPairs    = 4
	classOffloads = 5

	rxPromiscuous  = 0
	rxAllMulticast = 1
	macTableSet    = 0
	macAddrSet     = 1

	ackOK    = 0
	ackError = 1

	commandHeader = 2
	// maxCommand holds a table of more addresses than are filtered.
	maxCommand = 4096
)

// command does one request of the control queue and answers it with one byte.
func (d *Device) command(c *virtio.Chain) (uint32, error) {
	var ack [1]byte
	if virtio.Len(c.Write) == 0 {
		return 0, fmt.Errorf("%w: no room for the answer to a command", virtio.ErrDriver)
	}
	if !d.obey(c) {
		ack[0] = ackError
	}
	return uint32(c.CopyIn(ack[:])), nil
}

// obey tells whether the command was one, and could be done.
func (d *Device) obey(c *virtio.Chain) bool {
	n := virtio.Len(c.Read)
	if n < commandHeader {
		return false
	}
	data := make([]byte, min(n, maxCommand+1))
	c.CopyOut(data, 0) // copied once: what is checked is what is used
	class, cmd, data := data[0], data[1], data[commandHeader:]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return false
	}
	switch class {
	case classRX:
		return len(data) == 1 && d.setReceive(cmd, data[0] != 0)
	case classMAC:
		return d.commandMAC(cmd, data)
	case classAnnounce:
		d.setStatus(0, statusAnnounce)
		return cmd == 0 && d.features&featureAnnounce != 0
	case classPairs:
		return cmd == 0 && len(data) == 2 && d.commandPairs(int(binary.LittleEndian.Uint16(data)))
	case classOffloads:
		return cmd == 0 && len(data) == 8 && d.commandOffloads(binary.LittleEndian.Uint64(data))
	}
	return false
}

func (d *Device) setReceive(cmd byte, on bool) bool {
	switch cmd {
	case rxPromiscuous:
		d.filter.promiscuous = on
	case rxAllMulticast:
		d.filter.allMulticast = on
	default:
		return false
	}
	d.filter.set = true
	return d.applyFilter() == nil
}

func (d *Device) commandMAC(cmd byte, data []byte) bool {
	switch cmd {
	case macAddrSet:
		if len(data) != macSize || data[0]&1 != 0 {
			return false
		}
		d.setMAC([macSize]byte(data))
		return d.applyFilter() == nil
	case macTableSet:
		unicast, rest, ok := macTable(data)
		multicast, rest, ok2 := macTable(rest)
		if !ok || !ok2 || len(rest) > 0 {
			// A guest whose list is not understood gets more than it wants, not less.
			d.filter.unicast, d.filter.multicast = nil, nil
			d.filter.set = false
			_ = d.applyFilter()
			return false
		}
		d.filter.unicast, d.filter.multicast, d.filter.set = unicast, multicast, true
		return d.applyFilter() == nil
	}
	return false
}

// macTable reads a struct virtio_net_ctrl_mac.
func macTable(data []byte) (list [][macSize]byte, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n, data := binary.LittleEndian.Uint32(data), data[4:]
	if uint64(n)*macSize > uint64(len(data)) {
		return nil, nil, false
	}
	for range n {
		list = append(list, [macSize]byte(data))
		data = data[macSize:]
	}
	return list, data, true
}

func (d *Device) applyFilter() error {
	d.config.Lock()
	mac := [macSize]byte(d.space[:])
	d.config.Unlock()
	return d.taps[0].setFilter(d.filter.table(mac))
}

func (d *Device) commandPairs(n int) bool {
	if d.features&featureMultiQueue == 0 || n < 1 || n > len(d.pairs) {
		return false
	}
	if err := d.usePairs(n); err != nil {
		d.host.NeedsReset(err)
		return false
	}
	return true
}

// commandOffloads may take back, and give again, what was negotiated.
func (d *Device) commandOffloads(wanted uint64) bool {
	const possible uint64 = featureGuestCSum | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN
	if d.features&featureGuestOffloads == 0 || wanted&^(possible&d.features) != 0 {
		return false
	}
	return d.setOffloads(wanted) == nil
}
