package uplink

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

// forever is the lease time that never ends (RFC 2131, 3.3), in seconds.
const forever = 0xffffffff

// minLease keeps a server from making the client busy, minMTU is what every
// IPv4 host takes (RFC 791).
const (
	minLease = 2 * time.Second
	minMTU   = 576
)

// lease is an acknowledged lease, checked.
type lease struct {
	ack        *dhcpv4.DHCPv4
	acquired   time.Time // when the request was sent, as RFC 2131, 4.4.1 counts
	server     netip.Addr
	net        netConfig
	infinite   bool
	t1, t2, t3 time.Duration // renew, rebind, expire; after acquired
}

func (l *lease) renew() time.Time   { return l.acquired.Add(l.t1) }
func (l *lease) rebind() time.Time  { return l.acquired.Add(l.t2) }
func (l *lease) expires() time.Time { return l.acquired.Add(l.t3) }

func (l *lease) expired(now time.Time) bool { return !l.infinite && !now.Before(l.expires()) }

// info is the lease as the status shows it.
func (l *lease) info() *LeaseInfo {
	i := &LeaseInfo{Server: l.server, Acquired: l.acquired.Round(0)}
	if !l.infinite {
		i.Renew, i.Rebind, i.Expires = l.renew().Round(0), l.rebind().Round(0), l.expires().Round(0)
	}
	return i
}

// parseLease checks an acknowledgement or an offer. A server is not trusted to
// send sense: what it says becomes the node's configuration.
func parseLease(ack *dhcpv4.DHCPv4, acquired time.Time) (*lease, error) {
	l := &lease{ack: ack, acquired: acquired, server: toAddr(ack.ServerIdentifier())}
	if !l.server.IsValid() {
		return nil, fmt.Errorf("no server identifier")
	}
	a := toAddr(ack.YourIPAddr)
	if !usable(a) {
		return nil, fmt.Errorf("address %s cannot be a host's", ack.YourIPAddr)
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	ones, bits := mask.Size()
	if bits != 32 || ones < 1 {
		return nil, fmt.Errorf("subnet mask %s is none", mask)
	}
	l.net.address = netip.PrefixFrom(a, ones)
	if err := CheckHost(l.net.address); err != nil {
		return nil, err
	}
	if err := l.parseTimes(); err != nil {
		return nil, err
	}
	l.parseRoutes()
	for _, ip := range ack.DNS() {
		if d := toAddr(ip); usable(d) || d.IsLoopback() {
			l.net.dns = append(l.net.dns, d)
		}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= minMTU {
		l.net.mtu = int(mtu)
	}
	return l, nil
}

// parseTimes puts T1 and T2 where RFC 2131, 4.4.5 has them unless the server
// says something possible.
func (l *lease) parseTimes() error {
	t3 := l.ack.IPAddressLeaseTime(0)
	if t3 < minLease {
		return fmt.Errorf("lease time %s is too short", t3)
	}
	if t3/time.Second >= forever {
		l.infinite = true
		return nil
	}
	t2 := l.ack.IPAddressRebindingTime(0)
	if t2 <= 0 || t2 >= t3 {
		t2 = t3 / 8 * 7
	}
	t1 := l.ack.IPAddressRenewalTime(0)
	if t1 <= 0 || t1 >= t2 {
		if t1 = t3 / 2; t1 >= t2 {
			t1 = t2 / 2
		}
	}
	l.t1, l.t2, l.t3 = t1, t2, t3
	return nil
}

// parseRoutes follows RFC 3442: if there are classless routes, the router
// option does not count.
func (l *lease) parseRoutes() {
	classless := l.ack.ClasslessStaticRoute()
	for _, r := range classless {
		dst, gw := rtnl.Prefix(r.Dest), toAddr(r.Router)
		if !dst.IsValid() {
			continue
		}
		dst = dst.Masked()
		if gw.IsValid() && !usable(gw) {
			continue
		}
		if dst.Bits() == 0 && gw.IsValid() {
			l.net.gateway = gw
			continue
		}
		l.net.routes = append(l.net.routes, route{dst, gw})
	}
	if routers := l.ack.Router(); len(classless) == 0 && len(routers) > 0 {
		if gw := toAddr(routers[0]); usable(gw) {
			l.net.gateway = gw
		}
	}
}

// toAddr is ip as an address; invalid for none and 0.0.0.0.
func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if !a.IsValid() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// saved is the lease file. Its clock is CLOCK_BOOTTIME, because the wall clock
// jumps when it is set for the first time; the file does not survive a reboot.
type saved struct {
	Interface  string        `json:"interface"`
	MAC        string        `json:"mac"`
	ACK        []byte        `json:"ack"`
	AcquiredAt time.Duration `json:"acquired_boottime_ns"`
}

func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func saveLease(path, iface, mac string, l *lease) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(saved{iface, mac, l.ack.ToBytes(), boottime() - time.Since(l.acquired)})
	if err != nil {
		return err
	}
	return writeFile(path, b, 0o600)
}

// loadLease returns the saved lease of an interface while it is valid, else nil.
func loadLease(path, iface, mac string) *lease {
	b, err := os.ReadFile(path)
	if path == "" || err != nil {
		return nil
	}
	var s saved
	if json.Unmarshal(b, &s) != nil || s.Interface != iface || s.MAC != mac {
		return nil
	}
	ack, err := dhcpv4.FromBytes(s.ACK)
	if err != nil {
		return nil
	}
	age := boottime() - s.AcquiredAt
	l, err := parseLease(ack, time.Now().Add(-age))
	if err != nil || age < 0 || l.expired(time.Now()) {
		return nil
	}
	return l
}

func forgetLease(path string) {
	if path != "" {
		os.Remove(path)
	}
}

// writeFile replaces a file at once, so that nobody reads half of it.
func writeFile(path string, b []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return qverr.New(qverr.IO, "write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(perm)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return qverr.New(qverr.IO, "write %s: %w", path, err)
	}
	return nil
}
