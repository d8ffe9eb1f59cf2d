package netboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"quantavirt/netstack/tftp"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/mac"
)

// Ports that PXE fixes.
const (
	portTFTP = 69
	portBoot = 4011
)

// closeTimeout is how long a transfer may go on when the server ends.
const closeTimeout = 5 * time.Second

// Server serves one interface.
type Server struct {
	opts   Options
	booter *booter
	subnet netip.Prefix // of the interface, with the server's address
	mtu    int          // of the interface, bytes

	watch   *watcher // of the configuration, nil without one
	updates []*os.Root
	full    *dhcp.Server // in full mode
	proxy   []*responder // in proxy mode
	tftp    *tftp.Server
	tftpOn  *net.UDPConn
	http    *http.Server
	httpOn  net.Listener
}

// New loads everything and takes the ports, so that Run cannot fail on them.
// Errors: QV_ERR_INVAL for the options, QV_ERR_CONFIG for the configuration,
// QV_NET_ERR_DHCP for the pool, QV_ERR_BUSY and QV_ERR_PERM for ports.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	subnet, mtu, err := interfaceAddress(o.Interface, o.Address)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, subnet: subnet, mtu: mtu}
	s.booter = &booter{log: o.Log, address: subnet.Addr(), port: o.HTTPPort, uefi: o.UEFI, cmdline: o.words(),
		knownOnly: o.KnownOnly, once: o.Once, machines: newMachines(), set: new(Set)}
	if err := s.open(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open loads all files and takes all ports.
func (s *Server) open() (err error) {
	b := s.booter
	if s.opts.Config != "" {
		// First the watch: a change while it is loaded is not missed.
		if s.watch, err = newWatcher(s.opts.Config); err != nil {
			return qverr.New(qverr.Config, "configuration of the machines: %w", err)
		}
		if b.set, err = s.load(); err != nil {
			return err
		}
	}
	if b.state, err = openState(s.opts.State); err != nil {
		return err
	}
	if b.tree, err = openTree(s.opts.Tree, s.opts.IPXE); err != nil {
		return err
	}
	if s.opts.Updates != "" {
		root, err := os.OpenRoot(s.opts.Updates)
		if err != nil {
			return qverr.New(qverr.CodeOf(err), "directory of the updates: %w", err)
		}
		s.updates = append(s.updates, root)
	}
	return s.listen()
}

// load reads the configuration and checks it against the mode.
func (s *Server) load() (*Set, error) {
	set, err := Load(s.opts.Config)
	if err != nil {
		return nil, err
	}
	for _, e := range set.entries {
		switch {
		case e.Address.IsValid() && s.opts.Mode == Proxy:
			return nil, qverr.New(qverr.Config, "machine %s: in proxy mode another server gives addresses, so it cannot be given %s", e.keys()[0], e.Address)
		case s.opts.KnownOnly && len(Identity{UUID: e.UUID}.keys())+len(e.MACs) == 0:
			return nil, qverr.New(qverr.Config, "machine %s: a serial number is not known when DHCP is asked, so --known-only needs its MAC address or UUID", e.keys()[0])
		}
	}
	if s.opts.Mode == Full {
		if err := s.pool(set).Check(); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// Reload reads the configuration anew. On an error, with QV_ERR_CONFIG, the old
// one stays.
func (s *Server) Reload() error {
	if s.opts.Config == "" {
		return nil
	}
	set, err := s.load()
	if err == nil && s.full != nil {
		err = s.full.Update(s.pool(set))
	}
	if err != nil {
		return err
	}
	s.booter.mu.Lock()
	defer s.booter.mu.Unlock()
	s.booter.set = set
	return nil
}

// pool is what DHCP gives in full mode.
func (s *Server) pool(set *Set) dhcp.Config {
	o := s.opts
	c := dhcp.Config{Bridge: o.Interface, Subnet: s.subnet, First: o.First, Last: o.Last, Gateway: o.Router, DNS: o.DNS,
		LeaseTime: o.LeaseTime, Names: make(map[mac.Addr]string), Hook: s.booter}
	if c.Router = o.Router == s.subnet.Addr(); c.Router {
		c.Gateway = netip.Addr{}
	}
	for _, e := range set.entries {
		for _, m := range e.MACs {
			c.Names[m] = e.Name
		}
		if e.Address.IsValid() {
			c.Fixed = append(c.Fixed, dhcp.Fixed{MAC: e.MACs[0], Address: e.Address, Hostname: e.Name})
		}
	}
	return c
}

// listen takes all ports.
func (s *Server) listen() (err error) {
	if s.opts.Mode == Full {
		full, err := dhcp.New(s.pool(s.booter.set), s.booter.state, s.opts.Log)
		if err != nil {
			return err
		}
		if err := full.Start(); err != nil {
			return atPort(err, "DHCP", dhcpv4.ServerPort)
		}
		s.full = full
	} else {
		for port, respond := range map[int]func([]byte) *dhcpv4.DHCPv4{dhcpv4.ServerPort: s.booter.respond, portBoot: s.booter.respondBoot} {
			conn, err := dhcp.Listen(s.opts.Interface, port)
			if err != nil {
				return atPort(err, "DHCP", port)
			}
			s.proxy = append(s.proxy, &responder{conn: conn, source: s.subnet.Addr(), respond: respond, log: s.opts.Log})
		}
	}
	if s.tftpOn, err = dhcp.Listen(s.opts.Interface, portTFTP); err != nil {
		return atPort(err, "TFTP", portTFTP)
	}
	s.tftp = tftp.New(tftpFiles{s.booter}, s.mtu)
	l, err := net.Listen("tcp4", netip.AddrPortFrom(s.subnet.Addr(), s.opts.HTTPPort).String())
	if err != nil {
		return atPort(err, "HTTP", int(s.opts.HTTPPort))
	}
	s.httpOn = netutil.LimitListener(l, maxConnections)
	w := &web{booter: s.booter, updates: s.updates, admins: s.opts.Admins}
	s.http = &http.Server{Handler: w.handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: idleTimeout, WriteTimeout: transferTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader}
	return nil
}

// atPort explains why a port could not be taken.
func atPort(err error, service string, port int) error {
	code := qverr.CodeOf(errors.Unwrap(err))
	e := qverr.New(code, "%s on port %d: %w", service, port, err)
	switch code {
	case qverr.Busy:
		return e.WithHint("another server has the port: ss -lunpt shows it")
	case qverr.Perm:
		return e.WithHint("run it as root, or give it the capability net_bind_service")
	}
	return e
}

// Run serves until ctx ends, and reloads the configuration when its files
// change or reload, which may be nil, says so. The server cannot be used again.
func (s *Server) Run(ctx context.Context, reload <-chan os.Signal) error {
	defer s.close()
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range s.proxy {
		g.Go(r.serve)
	}
	g.Go(func() error { return s.tftp.Serve(s.tftpOn) })
	g.Go(func() error {
		if err := s.http.Serve(s.httpOn); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	if s.watch != nil {
		g.Go(func() error { return s.watch.run(ctx, s.changed) })
	}
	g.Go(func() error {
		for {
			select {
			case <-reload:
				s.changed()
			case <-ctx.Done():
				s.stop()
				return nil
			}
		}
	})
	s.opts.Log.Info("ready", "interface", s.opts.Interface, "mode", string(s.opts.Mode), "url", s.booter.url(pathScript),
		"machines", s.booter.current().Len())
	err := g.Wait()
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "serve %s: %w", s.opts.Interface, err)
	}
	return nil
}

// changed reloads and says how it went.
func (s *Server) changed() {
	if err := s.Reload(); err != nil {
		s.opts.Log.Error("configuration not changed", "err", err)
		return
	}
	s.opts.Log.Info("configuration loaded", "machines", s.booter.current().Len())
}

// stop ends the services; transfers that go on get a moment.
func (s *Server) stop() {
	for _, r := range s.proxy {
		_ = r.conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	s.tftp.Shutdown()
}

// close gives everything back that New has taken.
func (s *Server) close() {
	if s.watch != nil {
		s.watch.close()
	}
	if s.full != nil {
		s.full.Close()
	}
	for _, r := range s.proxy {
		_ = r.conn.Close()
	}
	if s.tftpOn != nil {
		_ = s.tftpOn.Close()
	}
	if s.httpOn != nil {
		_ = s.httpOn.Close()
	}
	for _, r := range s.updates {
		_ = r.Close()
	}
	if s.booter.tree != nil {
		s.booter.tree.close()
	}
}

// URL is the address of the HTTP service.
func (s *Server) URL() string { return s.booter.url("") }

// interfaceAddress finds the server's address with the length of its subnet,
// and the MTU.
func interfaceAddress(name string, want netip.Addr) (netip.Prefix, int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Prefix{}, 0, qverr.New(qverr.NoDev, "interface %s: %w", name, err).WithHint("ip link shows those that there are")
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Prefix{}, 0, qverr.New(qverr.CodeOf(err), "addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && (!want.IsValid() || p.Addr() == want) {
			return p, i.MTU, nil
		}
	}
	wanted := "an IPv4 address"
	if want.IsValid() {
		wanted = want.String()
	}
	return netip.Prefix{}, 0, qverr.New(qverr.Inval, "interface %s does not have %s", name, wanted).
		WithHint("%s", fmt.Sprintf("ip addr add ADDRESS/LENGTH dev %s", name))
}
