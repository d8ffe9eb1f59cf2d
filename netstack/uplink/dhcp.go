package uplink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

var (
	// errSilent: no server answered, and another interface could be tried.
	errSilent = errors.New("no DHCP server answers")
	// errNak: the server says that the address is not ours.
	errNak = errors.New("the DHCP server refused the address")
)

// burst is how often one request is sent before the next longer wait.
const burst = 3

// retryForever is for clients whose waits end by their contexts.
const retryForever = time.Hour

// nakPause keeps a server that refuses its own offers from making a loop.
const nakPause = time.Second

// dhcp runs the client (RFC 2131, 4.4) until ctx ends or, with errSilent, the
// interface should be left to another one.
func (u *Uplink) dhcp(ctx context.Context, w *rtnl.Watcher, link netlink.Link) error {
	l, err := u.resume(ctx, link)
	for err == nil || errors.Is(err, errNak) {
		if l == nil {
			if l, err = u.acquire(ctx, w, link); err != nil {
				continue
			}
			if err = u.take(link, l); err != nil {
				u.problem(link, qverr.From(err))
				l = nil
				if sleep(ctx, nakPause) {
					err = nil
				}
				continue
			}
		}
		err = u.hold(ctx, link, l)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l = nil
	}
	return err
}

// resume takes up the lease that an earlier run, or the time before the carrier
// was lost, left: the address stays in use while the server is asked
// (INIT-REBOOT). Nil if there is none or the server refuses it.
func (u *Uplink) resume(ctx context.Context, link netlink.Link) (*lease, error) {
	l := u.last
	if l == nil {
		l = loadLease(u.opts.LeaseFile, link.Attrs().Name, link.Attrs().HardwareAddr.String())
	}
	if l == nil || l.expired(time.Now()) {
		return nil, ctx.Err()
	}
	if err := u.take(link, l); err != nil {
		return nil, ctx.Err()
	}
	req, err := u.message(link, dhcpv4.MessageTypeRequest,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(l.net.address.Addr().AsSlice())))
	if err != nil {
		return nil, err
	}
	fresh, err := u.raw(ctx, link, req, l.net.address.Addr(), netip.Addr{})
	switch {
	case errors.Is(err, errNak):
		u.drop(link, "the server refused it")
		return nil, ctx.Err()
	case err != nil: // no answer: the lease is good until it expires
		return l, ctx.Err()
	}
	if err := u.take(link, fresh); err != nil {
		return nil, ctx.Err()
	}
	return fresh, nil
}

// acquire gets a new lease: DISCOVER, OFFER, REQUEST, ACK.
func (u *Uplink) acquire(ctx context.Context, w *rtnl.Watcher, link netlink.Link) (*lease, error) {
	client, err := rawClient(link)
	if err != nil {
		return nil, qverr.New(qverr.NetCreate, "DHCP on %s: %w", link.Attrs().Name, err)
	}
	defer client.Close()
	discover, err := u.message(link, dhcpv4.MessageTypeDiscover)
	if err != nil {
		return nil, err
	}
	n := 0
	if !rtnl.CanSend(link) {
		n = -1 // the first one may be lost on the way out
	}
	for started := time.Now(); ; n++ {
		discover.NumSeconds = seconds(time.Since(started))
		l, err := u.transaction(ctx, client, link, discover, u.wait(n))
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errNak):
			u.log.Warn("DHCP server refused its own offer", "interface", link.Attrs().Name)
			if !sleep(ctx, nakPause) {
				return nil, ctx.Err()
			}
			if discover.TransactionID, err = dhcpv4.GenerateTransactionID(); err != nil {
				return nil, err
			}
		}
		if n+1 < u.time.attempts {
			continue
		}
		u.problem(link, qverr.New(qverr.Timeout, "no DHCP server answers on %s", link.Attrs().Name).
			WithHint("check the DHCP server, or give the node an address: quantavirt.ip=ADDR/LEN,GATEWAY,DNS"))
		if links, _, werr := w.Links(); werr == nil && u.others(links, link) {
			return nil, errSilent
		}
	}
}

// others reports whether another interface could be the uplink.
func (u *Uplink) others(links []netlink.Link, link netlink.Link) bool {
	l := choose(candidates(links, u.cfg.Interface), 0, link.Attrs().Index)
	return l != nil && l.Attrs().Index != link.Attrs().Index
}

// transaction is one attempt at the four messages. All attempts have one
// transaction id: a server that probes an address first (a second is usual)
// answers the first DISCOVER while a later one waits.
func (u *Uplink) transaction(ctx context.Context, client *nclient4.Client, link netlink.Link, discover *dhcpv4.DHCPv4,
	wait time.Duration) (*lease, error) {
	offer, err := ask(ctx, client, nclient4.DefaultServers, discover, wait, func(m *dhcpv4.DHCPv4) bool {
		_, err := parseLease(m, time.Now())
		return m.MessageType() == dhcpv4.MessageTypeOffer && err == nil
	})
	if err != nil {
		return nil, err
	}
	req, err := u.message(link, dhcpv4.MessageTypeRequest,
		dhcpv4.WithTransactionID(offer.TransactionID),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
	if err != nil {
		return nil, err
	}
	req.NumSeconds = discover.NumSeconds // RFC 2131, 4.4.1: as in the DISCOVER
	return u.requestAck(ctx, client, nclient4.DefaultServers, req, toAddr(offer.YourIPAddr), toAddr(offer.ServerIdentifier()))
}

// requestAck sends a REQUEST up to burst times. server, if valid, is the only
// one whose answer counts.
func (u *Uplink) requestAck(ctx context.Context, client *nclient4.Client, to *net.UDPAddr, req *dhcpv4.DHCPv4,
	want, server netip.Addr) (*lease, error) {
	var err error
	for n := range burst {
		sent := time.Now()
		var l *lease
		var ack *dhcpv4.DHCPv4
		ack, err = ask(ctx, client, to, req, u.wait(n), func(m *dhcpv4.DHCPv4) bool {
			if server.IsValid() && toAddr(m.ServerIdentifier()) != server {
				return false
			}
			if m.MessageType() == dhcpv4.MessageTypeNak {
				return true
			}
			var perr error
			l, perr = parseLease(m, sent)
			return m.MessageType() == dhcpv4.MessageTypeAck && perr == nil && l.net.address.Addr() == want
		})
		switch {
		case err == nil && ack.MessageType() == dhcpv4.MessageTypeNak:
			return nil, fmt.Errorf("%w %s: %q", errNak, want, ack.Message())
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
	return nil, err
}

// raw sends a REQUEST from an interface that may not be configured.
func (u *Uplink) raw(ctx context.Context, link netlink.Link, req *dhcpv4.DHCPv4, want, server netip.Addr) (*lease, error) {
	client, err := rawClient(link)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return u.requestAck(ctx, client, nclient4.DefaultServers, req, want, server)
}

// hold keeps a lease: renews it at T1 with its server, rebinds it at T2 with
// any, and ends with nil when it is lost and the address removed.
func (u *Uplink) hold(ctx context.Context, link netlink.Link, l *lease) error {
	for {
		if l.infinite {
			<-ctx.Done()
			return ctx.Err()
		}
		if !sleep(ctx, time.Until(l.renew())) {
			return ctx.Err()
		}
		fresh, err := u.extend(ctx, link, l)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNak):
			u.drop(link, "the server refused to renew it")
			return nil
		case err != nil:
			u.drop(link, "it expired")
			return nil
		}
		if err := u.take(link, fresh); err != nil {
			u.drop(link, err.Error())
			return nil
		}
		l = fresh
	}
}

// extend tries until the lease expires. Each wait is half of what is left, but
// not shorter than a minute.
func (u *Uplink) extend(ctx context.Context, link netlink.Link, l *lease) (*lease, error) {
	for {
		deadline, to := l.rebind(), &net.UDPAddr{IP: l.server.AsSlice(), Port: nclient4.ServerPort}
		server := l.server
		if !time.Now().Before(deadline) {
			deadline, to, server = l.expires(), nclient4.DefaultServers, netip.Addr{}
		}
		next := time.Now().Add(max(time.Until(deadline)/2, u.time.renewWait))
		if next.After(deadline) {
			next = deadline
		}
		fresh, err := u.renewOnce(ctx, link, l, to, server, next)
		if err == nil || errors.Is(err, errNak) || ctx.Err() != nil {
			return fresh, err
		}
		if l.expired(time.Now()) {
			return nil, err
		}
		u.log.Warn("DHCP lease not renewed yet", "interface", link.Attrs().Name, "server", to.IP.String(),
			"expires", l.expires().UTC().Format(time.RFC3339),
			"err", qverr.New(qverr.Timeout, "renew %s: %w", l.net.address.Addr(), err))
		if !sleep(ctx, time.Until(next)) {
			return nil, ctx.Err()
		}
	}
}

// renewOnce sends a burst of requests from the leased address.
func (u *Uplink) renewOnce(ctx context.Context, link netlink.Link, l *lease, to *net.UDPAddr, server netip.Addr, until time.Time) (*lease, error) {
	conn, err := listen(link.Attrs().Name, l.net.address.Addr())
	if err != nil {
		return nil, err
	}
	client, err := nclient4.NewWithConn(conn, link.Attrs().HardwareAddr, nclient4.WithRetry(1), nclient4.WithTimeout(retryForever))
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer client.Close()
	req, err := u.message(link, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(l.net.address.Addr().AsSlice()))
	if err != nil {
		return nil, err
	}
	bctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return u.requestAck(bctx, client, to, req, l.net.address.Addr(), server)
}

// take configures the interface with a lease and records it.
func (u *Uplink) take(link netlink.Link, l *lease) error {
	valid := time.Until(l.expires())
	if l.infinite {
		valid = 0
	} else if valid <= 0 {
		return qverr.New(qverr.Timeout, "the DHCP lease of %s has expired", l.net.address)
	}
	if err := configure(link, l.net, valid, protoDHCP); err != nil {
		return err
	}
	if u.cfg.MTU == 0 {
		if err := setMTU(link, l.net.mtu); err != nil {
			u.log.Warn("MTU of the DHCP lease not usable", "err", err)
		}
	}
	if err := saveLease(u.opts.LeaseFile, link.Attrs().Name, link.Attrs().HardwareAddr.String(), l); err != nil {
		u.log.Warn("DHCP lease not kept over a restart", "err", err)
	}
	if u.last == nil || u.last.net.address != l.net.address {
		u.log.Info("uplink up", "interface", link.Attrs().Name, "address", l.net.address.String(),
			"gateway", l.net.gateway.String(), "server", l.server.String(), "lease_seconds", int(l.t3.Seconds()))
	}
	u.last = l
	u.up(link, l.net, l)
	return nil
}

// drop gives an address up that is not ours any more.
func (u *Uplink) drop(link netlink.Link, why string) {
	forgetLease(u.opts.LeaseFile)
	u.last = nil
	if err := deconfigure(link); err != nil {
		u.log.Error("address not removed", "err", err)
	}
	u.down(link, qverr.New(qverr.Timeout, "uplink %s lost its DHCP lease: %s", link.Attrs().Name, why))
}

// message is a client's message with what goes into each of them.
func (u *Uplink) message(link netlink.Link, typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	all := []dhcpv4.Modifier{
		dhcpv4.WithHwAddr(link.Attrs().HardwareAddr),
		dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
		// RFC 3442: classless routes are asked for before routers.
		dhcpv4.WithOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute,
			dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionIPAddressLeaseTime,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue)),
	}
	if u.opts.Hostname != "" {
		all = append(all, dhcpv4.WithOption(dhcpv4.OptHostName(u.opts.Hostname)))
	}
	m, err := dhcpv4.New(append(all, mods...)...)
	if err != nil {
		return nil, fmt.Errorf("make a DHCP message: %w", err)
	}
	return m, nil
}

// wait is how long attempt n waits for its answer: doubled each time, with a
// tenth of jitter so that nodes that start together drift apart. Attempt -1 is
// a try.
func (u *Uplink) wait(n int) time.Duration {
	if n < 0 {
		return u.time.first / 10
	}
	d := min(u.time.first<<min(n, 16), u.time.max)
	return d + time.Duration((rand.Float64()*2-1)*float64(d)/10)
}

// ask sends once and waits for the first answer that matches.
func ask(ctx context.Context, client *nclient4.Client, to *net.UDPAddr, m *dhcpv4.DHCPv4, wait time.Duration,
	match nclient4.Matcher) (*dhcpv4.DHCPv4, error) {
	actx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return client.SendAndRead(actx, to, m, match)
}

// rawClient speaks from an interface without an address, through a packet
// socket and to the broadcast address.
func rawClient(link netlink.Link) (*nclient4.Client, error) {
	return nclient4.New(link.Attrs().Name, nclient4.WithRetry(1), nclient4.WithTimeout(retryForever))
}

// listen takes UDP port 68 of the leased address on one interface.
func listen(iface string, a netip.Addr) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = errors.Join(unix.BindToDevice(int(fd), iface),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		})
		return errors.Join(err, serr)
	}}
	return lc.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(a, nclient4.ClientPort).String())
}

func seconds(d time.Duration) uint16 { return uint16(min(d/time.Second, 0xffff)) }
