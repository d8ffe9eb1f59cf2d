package uplink

import (
	"net/netip"
	"strings"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// Mode says where the address comes from.
type Mode string

// Modes. Off leaves all interfaces but the loopback alone.
const (
	DHCP       Mode = "dhcp"
	StaticMode Mode = "static"
	Off        Mode = "off"
)

// Config is the wanted state of the uplink. The zero Config is DHCP on the
// first physical Ethernet with a carrier.
type Config struct {
	Mode      Mode   `json:"mode"`                // empty means DHCP
	Interface string `json:"interface,omitempty"` // name or MAC address; empty: Options.BootCard, else the first physical Ethernet with a carrier
	Static    Static `json:"static,omitzero"`     // for StaticMode
	MTU       int    `json:"mtu,omitempty"`       // bytes; 0: that of the lease, else left alone
}

// Static is an address that does not come from a server.
type Static struct {
	Address netip.Prefix `json:"address"`          // of the node, with the length of its subnet
	Gateway netip.Addr   `json:"gateway,omitzero"` // zero: no default route
	DNS     []netip.Addr `json:"dns,omitempty"`
}

// State of the uplink.
type State string

// States.
const (
	Up   State = "up"
	Down State = "down"
	None State = "off"
)

// Status is what the uplink really is.
type Status struct {
	State     State        `json:"state"`
	Mode      Mode         `json:"mode"`
	Interface string       `json:"interface,omitempty"`
	MAC       mac.Addr     `json:"mac,omitzero"`
	MTU       int          `json:"mtu,omitempty"`
	Address   netip.Prefix `json:"address,omitzero"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	DNS       []netip.Addr `json:"dns,omitempty"`
	Lease     *LeaseInfo   `json:"lease,omitempty"`
	// Problem is why the uplink is not, or not fully, usable; it carries its
	// catalogue code. Nil when all is well or nothing is known yet.
	Problem *qverr.Error `json:"-"`
}

// On tells whether this is the status of the interface with a name or MAC
// address.
func (s Status) On(name string) bool {
	return s.Interface == name || strings.EqualFold(s.MAC.String(), name)
}

// LeaseInfo is the DHCP lease of the uplink.
type LeaseInfo struct {
	Server   netip.Addr `json:"server"`
	Acquired time.Time  `json:"acquired"`
	Renew    time.Time  `json:"renew"`   // T1
	Rebind   time.Time  `json:"rebind"`  // T2
	Expires  time.Time  `json:"expires"` // zero: never
}

// ParseStatic reads ADDR/LEN[,GATEWAY[,DNS[,DNS]...]], the value of the kernel
// option quantavirt.ip. GATEWAY may be empty. Errors carry QV_ERR_INVAL.
func ParseStatic(s string) (Static, error) {
	parts := strings.Split(s, ",")
	var st Static
	p, err := netip.ParsePrefix(parts[0])
	if err != nil {
		return Static{}, qverr.New(qverr.Inval, "static address %q: %w", s, err)
	}
	st.Address = p
	if len(parts) > 1 && parts[1] != "" {
		if st.Gateway, err = netip.ParseAddr(parts[1]); err != nil {
			return Static{}, qverr.New(qverr.Inval, "gateway of static address %q: %w", s, err)
		}
	}
	for _, d := range parts[min(2, len(parts)):] {
		if d == "" {
			continue
		}
		a, err := netip.ParseAddr(d)
		if err != nil {
			return Static{}, qverr.New(qverr.Inval, "name server of static address %q: %w", s, err)
		}
		st.DNS = append(st.DNS, a)
	}
	if err := st.Check(); err != nil {
		return Static{}, err
	}
	return st, nil
}

// String is the form that ParseStatic reads.
func (s Static) String() string {
	var b strings.Builder
	b.WriteString(s.Address.String())
	if s.Gateway.IsValid() || len(s.DNS) > 0 {
		b.WriteByte(',')
	}
	if s.Gateway.IsValid() {
		b.WriteString(s.Gateway.String())
	}
	for _, d := range s.DNS {
		b.WriteByte(',')
		b.WriteString(d.String())
	}
	return b.String()
}

// Check refuses addresses that no host can have. Errors carry QV_ERR_INVAL.
func (s Static) Check() error {
	if err := CheckHost(s.Address); err != nil {
		return qverr.New(qverr.Inval, "static address: %w", err)
	}
	if g := s.Gateway; g.IsValid() {
		switch {
		case !usable(g):
			return qverr.New(qverr.Inval, "gateway %s is not the IPv4 address of a host", g)
		case g == s.Address.Addr():
			return qverr.New(qverr.Inval, "gateway %s is the node's own address", g)
		}
	}
	for _, d := range s.DNS {
		if !usable(d) {
			return qverr.New(qverr.Inval, "name server %s is not the IPv4 address of a host", d)
		}
	}
	return nil
}

// CheckHost refuses what is not the IPv4 address of a host in its subnet.
func CheckHost(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid() || !usable(a) || p.Bits() < 1:
		return qverr.New(qverr.Inval, "%s is not the IPv4 address of a host with the length of its subnet", p)
	case p.Bits() < 31 && (a == p.Masked().Addr() || a == LastAddr(p)):
		return qverr.New(qverr.Inval, "%s is the network or broadcast address of its subnet", p)
	}
	return nil
}

// LastAddr is the highest address of an IPv4 prefix: its broadcast address.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a.As4()[0] != 0 && a.As4()[0] < 240
}
