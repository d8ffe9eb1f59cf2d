package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/rtnl"
)

// fullLogInterval bounds how often an exhausted pool is logged.
const fullLogInterval = time.Minute

// Server serves one network.
type Server struct {
	log   *slog.Logger
	store Store
	now   func() time.Time

	mu   sync.Mutex
	cfg  Config
	pool *pool
	full time.Time // when the pool was last said to be exhausted; zero when it is not

	conn *net.UDPConn
	link netlink.Link
	done chan struct{}
}

// New loads the stored leases of a network. Errors carry QV_NET_ERR_DHCP.
func New(cfg Config, store Store, log *slog.Logger) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	leases, err := store.Load(cfg.NetworkID)
	if err != nil {
		return nil, qverr.New(qverr.NetDHCP, "load the leases of bridge %s: %w", cfg.Bridge, err)
	}
	s := &Server{log: log.With("bridge", cfg.Bridge), store: store, now: time.Now, cfg: cfg, pool: newPool(cfg)}
	for _, l := range s.pool.load(leases) {
		if r := s.pool.byMAC[l.MAC]; r == nil {
			s.remove(l.MAC)
		}
	}
	return s, nil
}

// Start listens on the bridge, which must exist with its address, and serves
// until Close. Errors carry QV_NET_ERR_DHCP.
func (s *Server) Start() error {
	link, err := rtnl.Link(s.cfg.Bridge)
	if err == nil && link == nil {
		err = errors.New("there is no such link")
	}
	if err != nil {
		return qverr.New(qverr.NetDHCP, "serve DHCP on %s: %w", s.cfg.Bridge, err)
	}
	conn, err := Listen(s.cfg.Bridge, dhcpv4.ServerPort)
	if err != nil {
		return qverr.New(qverr.NetDHCP, "serve DHCP on %s: %w", s.cfg.Bridge, err)
	}
	s.conn, s.link, s.done = conn, link, make(chan struct{})
	go s.serve()
	return nil
}

// Listen takes a UDP port of one interface for a service of the kind of DHCP.
// The address stays a wildcard, because clients without an address send to the
// broadcast address, and it may be sent to as well.
func Listen(iface string, port int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			if serr = unix.BindToDevice(int(fd), iface); serr != nil {
				serr = fmt.Errorf("bind to %s: %w", iface, serr)
				return
			}
			// No UDP checksum (legal in IPv4): on the way to a guest it is left
			// to virtio, and clients on a packet socket see it unfinished.
			serr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
		})
		return errors.Join(err, serr)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// Index is the link that the server listens on; a bridge that was made anew has
// another one and needs another server.
func (s *Server) Index() int { return s.link.Attrs().Index }

// Close ends the service; leases stay stored.
func (s *Server) Close() {
	if s.conn != nil {
		s.conn.Close()
		<-s.done
	}
}

// Alive reports whether the server still reads its socket.
func (s *Server) Alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// serve handles one message after the other: a flood costs time, not memory.
func (s *Server) serve() {
	defer close(s.done)
	buf := make([]byte, 2048) // larger than any message over Ethernet; the rest is cut
	for {
		n, _, err := s.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, unix.ENETDOWN):
			continue // the bridge is down for a moment
		case err != nil:
			s.log.Error("DHCP server stops", "err", qverr.New(qverr.NetDHCP, "read: %w", err))
			return
		}
		resp := s.respond(buf[:n])
		if resp == nil {
			continue
		}
		if err := s.send(resp); err != nil {
			s.log.Warn("DHCP answer lost", "mac", resp.ClientHWAddr.String(),
				"err", qverr.New(qverr.NetDHCP, "send: %w", err))
		}
	}
}

// respond is everything between the bytes that came and the message to send.
func (s *Server) respond(b []byte) *dhcpv4.DHCPv4 {
	req, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil
	}
	return s.handle(req)
}

// send follows RFC 2131, 4.1: to the client's address if it has one, to
// everybody if it asks for that, else to the address that it is about to get,
// which needs an ARP entry because the client does not answer for it yet.
func (s *Server) send(resp *dhcpv4.DHCPv4) error {
	dst := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	yours, have := addr(resp.YourIPAddr), addr(resp.ClientIPAddr)
	switch {
	case resp.MessageType() == dhcpv4.MessageTypeNak:
	case have.IsValid() && s.subnet().Contains(have):
		dst = have
	case !resp.IsBroadcast() && yours.IsValid():
		err := netlink.NeighSet(&netlink.Neigh{LinkIndex: s.Index(), Family: unix.AF_INET, State: netlink.NUD_STALE,
			IP: resp.YourIPAddr, HardwareAddr: resp.ClientHWAddr})
		if err == nil {
			dst = yours
		}
	}
	_, err := s.conn.WriteToUDPAddrPort(resp.ToBytes(), netip.AddrPortFrom(dst, dhcpv4.ClientPort))
	return err
}

func (s *Server) subnet() netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Subnet
}

// Update changes name servers, names, fixed leases, MTU, domain and lease time
// of a running server. Bridge, subnet and network stay.
func (s *Server) Update(cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg.Bridge, cfg.Subnet, cfg.NetworkID = s.cfg.Bridge, s.cfg.Subnet, s.cfg.NetworkID
	s.cfg, s.pool.cfg = cfg, cfg
	return nil
}

// Leases returns the leases that are held, ordered by address.
func (s *Server) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pool.leases(s.now())
}

// replace puts r into the pool; a stored lease of another client that held the
// address before leaves the store, so that a restart cannot bring it back.
func (s *Server) replace(r *record) {
	old := s.pool.byAddr[r.Address]
	s.pool.put(r)
	if old != nil && old.MAC != r.MAC && !old.offered {
		s.remove(old.MAC)
	}
}

// save makes a lease durable before it is acknowledged. A store that fails
// must not cut the guests off: the lease then lives in RAM.
func (s *Server) save(l Lease) {
	if err := s.store.Save(s.cfg.NetworkID, l); err != nil {
		s.log.Error("lease not stored", "mac", l.MAC.String(), "address", l.Address.String(),
			"err", qverr.New(qverr.NetDHCP, "store the lease of %s: %w", l.MAC, err))
	}
}

func (s *Server) remove(m mac.Addr) {
	if err := s.store.Delete(s.cfg.NetworkID, m); err != nil {
		s.log.Error("lease not removed", "mac", m.String(),
			"err", qverr.New(qverr.NetDHCP, "remove the lease of %s: %w", m, err))
	}
}

// exhausted says once in a while that there is no address left.
func (s *Server) exhausted(m mac.Addr, now time.Time) {
	if !s.full.IsZero() && now.Sub(s.full) < fullLogInterval {
		return
	}
	s.full = now
	s.log.Error("no address left for a guest", "mac", m.String(),
		"err", qverr.New(qverr.NetDHCP, "all addresses of %s are in use", s.cfg.Subnet.Masked()))
}
