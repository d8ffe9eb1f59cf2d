package mac

import (
	"crypto/sha256"
	"encoding/binary"
	"net"

	"quantavirt/internal/qverr"
)

// Addr is an Ethernet address (EUI-48). The zero value is no address.
type Addr [6]byte

// Parse reads the colon or dash form ("52:54:00:12:34:56") and refuses what no
// network card may have: multicast, broadcast and all zero. Errors carry
// QV_NET_ERR_MAC.
func Parse(s string) (Addr, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return Addr{}, qverr.New(qverr.NetMAC, "read MAC address %q: %w", s, err)
	}
	if len(hw) != len(Addr{}) {
		return Addr{}, qverr.New(qverr.NetMAC, "MAC address %q has %d bytes, want 6", s, len(hw))
	}
	a := Addr(hw)
	if err := a.Check(); err != nil {
		return Addr{}, err
	}
	return a, nil
}

// Check returns nil when a network card may have the address, else an error
// with QV_NET_ERR_MAC.
func (a Addr) Check() error {
	switch {
	case a == Addr{}:
		return qverr.New(qverr.NetMAC, "MAC address %s is all zero", a)
	case a[0]&1 != 0:
		return qverr.New(qverr.NetMAC, "MAC address %s is a group address", a)
	}
	return nil
}

// ForVM is the address of network card index of the VM with this uuid: always
// the same, unicast, with the locally administered bit. 46 bits come from a
// hash, so two cards of a fleet do not meet in practice.
func ForVM(uuid [16]byte, index int) Addr {
	return derive("quantavirt vm nic", uuid[:], index)
}

// ForBridge is the address of a network's bridge. A bridge without one of its
// own takes that of a port and changes it when ports come and go, under the
// guests' ARP caches.
func ForBridge(networkID string) Addr {
	return derive("quantavirt bridge", []byte(networkID), 0)
}

func derive(label string, id []byte, index int) Addr {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write([]byte{0})
	h.Write(id)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(index)))
	a := Addr(h.Sum(nil)[:6])
	a[0] = a[0]&^0x01 | 0x02
	return a
}

// HW is the address in the form of package net.
func (a Addr) HW() net.HardwareAddr { return append(net.HardwareAddr(nil), a[:]...) }

// IsZero reports whether a is no address.
func (a Addr) IsZero() bool { return a == Addr{} }

func (a Addr) String() string { return net.HardwareAddr(a[:]).String() }

// MarshalText writes the colon form.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is Parse.
func (a *Addr) UnmarshalText(b []byte) error {
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*a = p
	return nil
}
