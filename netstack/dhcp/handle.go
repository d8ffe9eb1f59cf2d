package dhcp

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// handle answers one message; nil means silence.
func (s *Server) handle(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	m, ok := client(req)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Hook != nil && !s.cfg.Hook.Admit(req) {
		return nil
	}
	now := s.now()
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return s.discover(req, m, now)
	case dhcpv4.MessageTypeRequest:
		return s.request(req, m, now)
	case dhcpv4.MessageTypeDecline:
		s.decline(req, m, now)
	case dhcpv4.MessageTypeRelease:
		s.release(req, m, now)
	case dhcpv4.MessageTypeInform:
		return s.inform(req)
	}
	return nil
}

// client checks that a message comes from a client on the bridge itself.
// There is no relay there, so one that says so is forged.
func client(req *dhcpv4.DHCPv4) (mac.Addr, bool) {
	if req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet || len(req.ClientHWAddr) != len(mac.Addr{}) {
		return mac.Addr{}, false
	}
	if req.GatewayIPAddr != nil && !req.GatewayIPAddr.IsUnspecified() {
		return mac.Addr{}, false
	}
	m := mac.Addr(req.ClientHWAddr)
	return m, m.Check() == nil
}

func (s *Server) discover(req *dhcpv4.DHCPv4, m mac.Addr, now time.Time) *dhcpv4.DHCPv4 {
	a, ok := s.pool.choose(m, addr(req.RequestedIPAddress()), now)
	if !ok {
		s.exhausted(m, now)
		return nil
	}
	s.full = time.Time{}
	if r := s.pool.byMAC[m]; r == nil || r.Address != a || !r.Active(now) {
		// A stored lease that gives way leaves the store with the next
		// acknowledgement: until then it is as good as expired.
		s.replace(&record{Lease: Lease{MAC: m, Address: a, Expires: now.Add(offerTime)}, offered: true})
	}
	return s.reply(req, dhcpv4.MessageTypeOffer, m, a)
}

// request is RFC 2131, 4.3.2: the client takes an offer, verifies an address
// after a restart, or extends its lease.
func (s *Server) request(req *dhcpv4.DHCPv4, m mac.Addr, now time.Time) *dhcpv4.DHCPv4 {
	server, asked, have := addr(req.ServerIdentifier()), addr(req.RequestedIPAddress()), addr(req.ClientIPAddr)
	r := s.pool.byMAC[m]
	if server.IsValid() && server != s.cfg.Subnet.Addr() {
		if r != nil && r.offered { // it took the offer of another server
			s.pool.drop(r)
		}
		return nil
	}
	want := asked
	if !want.IsValid() || want.IsUnspecified() {
		want = have
	}
	if server.IsValid() && (r == nil || r.Address != want) {
		return s.nak(req, "not the address that was offered")
	}
	// A client that this server forgot may keep its address when it is free:
	// on a node without a data volume the guests are older than the leases.
	if !s.pool.available(want, m, now) {
		return s.nak(req, "the address is not available")
	}
	if f, ok := s.cfg.fixedFor(m); ok && f.Address != want && s.pool.available(f.Address, m, now) {
		return s.nak(req, "another address is reserved")
	}
	l := Lease{MAC: m, Address: want, Hostname: hostname(req), Expires: now.Add(s.cfg.leaseTime())}
	fresh := r == nil || r.offered || !r.Active(now)
	s.replace(&record{Lease: l})
	s.save(l)
	if fresh {
		s.log.Info("lease given", "mac", m.String(), "address", want.String(), "hostname", l.Hostname)
	}
	return s.reply(req, dhcpv4.MessageTypeAck, m, want)
}

// decline: the client found the address in use by somebody else.
func (s *Server) decline(req *dhcpv4.DHCPv4, m mac.Addr, now time.Time) {
	r := s.pool.byMAC[m]
	if r == nil || addr(req.RequestedIPAddress()) != r.Address {
		return // nobody declines an address that is not his
	}
	s.log.Warn("address declined by its client: it is in use on the network",
		"mac", m.String(), "address", r.Address.String(),
		"err", qverr.New(qverr.NetDHCP, "address %s is in use although it was not given", r.Address))
	s.pool.decline(r, now)
	s.remove(m)
}

// release keeps the record as an expired one, so that the client gets the
// address again while nobody else needed it.
func (s *Server) release(req *dhcpv4.DHCPv4, m mac.Addr, now time.Time) {
	r := s.pool.byMAC[m]
	if r == nil || addr(req.ClientIPAddr) != r.Address || !r.Active(now) {
		return
	}
	r.Expires = now
	if !r.offered {
		s.save(r.Lease)
		s.log.Info("lease released", "mac", m.String(), "address", r.Address.String())
	}
}

// inform is for a client that has its address from elsewhere.
func (s *Server) inform(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	a := addr(req.ClientIPAddr)
	if !s.cfg.usable(a) {
		return nil
	}
	resp := s.reply(req, dhcpv4.MessageTypeAck, mac.Addr(req.ClientHWAddr), a)
	if resp == nil {
		return nil
	}
	resp.YourIPAddr = net.IPv4zero
	for _, o := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue,
		dhcpv4.OptionRebindingTimeValue} {
		resp.Options.Del(o)
	}
	return resp
}

func (s *Server) nak(req *dhcpv4.DHCPv4, why string) *dhcpv4.DHCPv4 {
	resp, err := dhcpv4.NewReplyFromRequest(req,
		dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.cfg.Subnet.Addr().AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptMessage(why)))
	if err != nil {
		return nil
	}
	resp.ClientIPAddr = net.IPv4zero
	resp.SetBroadcast() // the client's address is wrong, so is its ARP entry
	return resp
}

// reply carries the address and every option that the network has. They fit
// into the 312 bytes that each client takes (RFC 2131, section 2).
func (s *Server) reply(req *dhcpv4.DHCPv4, typ dhcpv4.MessageType, m mac.Addr, a netip.Addr) *dhcpv4.DHCPv4 {
	c, self, lease := s.cfg, s.cfg.Subnet.Addr().AsSlice(), s.cfg.leaseTime()
	opts := []dhcpv4.Option{
		dhcpv4.OptMessageType(typ),
		dhcpv4.OptServerIdentifier(self),
		dhcpv4.OptIPAddressLeaseTime(lease),
		{Code: dhcpv4.OptionRenewTimeValue, Value: dhcpv4.Duration(lease / 2)},
		{Code: dhcpv4.OptionRebindingTimeValue, Value: dhcpv4.Duration(lease * 7 / 8)},
		dhcpv4.OptSubnetMask(net.CIDRMask(c.Subnet.Bits(), 32)),
		dhcpv4.OptBroadcastAddress(c.broadcast().AsSlice()),
	}
	switch {
	case c.Router:
		opts = append(opts, dhcpv4.OptRouter(self))
	case c.Gateway.IsValid():
		opts = append(opts, dhcpv4.OptRouter(c.Gateway.AsSlice()))
	}
	if dns := servers(c.DNS); len(dns) > 0 {
		opts = append(opts, dhcpv4.OptDNS(dns...))
	}
	if c.MTU > 0 {
		opts = append(opts, dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(c.MTU)})
	}
	if n := c.hostname(m); n != "" {
		opts = append(opts, dhcpv4.OptHostName(n))
	}
	if c.Domain != "" {
		opts = append(opts, dhcpv4.OptDomainName(c.Domain))
	}
	resp, err := dhcpv4.NewReplyFromRequest(req)
	if err != nil {
		return nil
	}
	resp.YourIPAddr, resp.ServerIPAddr = a.AsSlice(), self
	for _, o := range opts {
		resp.UpdateOption(o)
	}
	if typ == dhcpv4.MessageTypeAck {
		resp.ClientIPAddr = req.ClientIPAddr
	}
	c.Boot.amend(req, resp)
	if c.Hook != nil {
		c.Hook.Amend(req, resp)
	}
	return resp
}

// amend tells a machine that boots what to load, in the fields of BOOTP and in the
// options of DHCP for these. Others are not told: their options have to fit.
func (b Boot) amend(req, resp *dhcpv4.DHCPv4) {
	if b.File == "" || !strings.HasPrefix(req.ClassIdentifier(), "PXEClient") {
		return
	}
	if b.Server.IsValid() {
		resp.ServerIPAddr = b.Server.AsSlice()
	}
	resp.BootFileName = b.File
	resp.UpdateOption(dhcpv4.OptTFTPServerName(resp.ServerIPAddr.String()))
	resp.UpdateOption(dhcpv4.OptBootFileName(b.File))
}

// servers are the name servers that a guest can reach: not the node's loopback.
// Three is what resolvers use.
func servers(dns []netip.Addr) []net.IP {
	var out []net.IP
	for _, d := range dns {
		if d.Is4() && !d.IsLoopback() && len(out) < 3 {
			out = append(out, d.AsSlice())
		}
	}
	return out
}

// hostname is how the client names itself, if that is a name.
func hostname(req *dhcpv4.DHCPv4) string {
	if h := req.HostName(); validHostname(h) {
		return h
	}
	return ""
}

// addr is ip as a netip.Addr; invalid if there is none.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if a.IsValid() && a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
