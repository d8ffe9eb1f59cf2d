package netboot

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/qverr"
)

// booter decides who is booted and what with. DHCP, TFTP and HTTP ask it.
type booter struct {
	log       *slog.Logger
	address   netip.Addr
	port      uint16
	uefi      UEFI
	tree      *tree
	cmdline   string // of every machine
	knownOnly bool
	machines  *machines
	state     *state
	once      bool // a machine fetches its configuration once

	mu  sync.Mutex
	set *Set
}

// current is the configuration as of now; it does not change.
func (b *booter) current() *Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set
}

// find is Set.Find, with the UUID in either order of its bytes.
func (s *Set) find(id Identity) (*Entry, bool) {
	e, ok := s.Find(id)
	if !ok {
		e, ok = s.Find(Identity{UUID: swapped(id.UUID)})
	}
	return e, ok
}

// lookup finds a machine. The entry is the default one, or nil, for a machine
// that has none of its own. A machine that must not be served gets an error
// with QV_ERR_PERM.
func (b *booter) lookup(set *Set, id Identity) (*Entry, error) {
	e, known := set.find(id)
	if !known && b.knownOnly {
		return nil, qverr.New(qverr.Perm, "machine %s is not in the configuration, and only those are served", id.label())
	}
	if !known {
		e = set.Default()
	}
	return e, nil
}

// done reports whether a machine has fetched its configuration for good.
func (b *booter) done(e *Entry, id Identity) bool {
	return b.once && b.state.has(fetchKeys(e, id))
}

// fetchKeys names a machine in every way that it is known by.
func fetchKeys(e *Entry, id Identity) []string {
	keys := id.keys()
	if e != nil {
		keys = append(keys, e.keys()...)
	}
	return keys
}

// offer is what a client is to boot. It is false when the client is not served.
func (b *booter) offer(c client) (file string, ok bool) {
	e, err := b.lookup(b.current(), c.id)
	if err != nil || b.done(e, c.id) {
		return "", false
	}
	file = b.file(c)
	return file, file != ""
}

// Admit implements dhcp.Hook.
func (b *booter) Admit(req *dhcpv4.DHCPv4) bool {
	c, ok := identify(req)
	if !ok {
		return false
	}
	if _, err := b.lookup(b.current(), c.id); err != nil {
		b.note(c, req, netip.Addr{}, "not served")
		return false
	}
	return true
}

// Amend implements dhcp.Hook.
func (b *booter) Amend(req, resp *dhcpv4.DHCPv4) {
	c, ok := identify(req)
	if !ok {
		return
	}
	answer := resp.YourIPAddr.String()
	if file, ok := b.offer(c); ok {
		b.amend(c, file, resp, false)
		answer += ", boots " + file
	} else if c.program == programNode {
		answer = b.tellNode(c, resp)
	}
	b.note(c, req, addressOf(resp.YourIPAddr), answer)
}

// hasConfig reports whether a machine has a configuration to fetch now.
func (b *booter) hasConfig(id Identity) bool {
	set := b.current()
	e, err := b.lookup(set, id)
	return err == nil && set.config(e) != nil && !b.done(e, id)
}

// respond answers a message at port 67 in proxy mode; nil means silence.
func (b *booter) respond(data []byte) *dhcpv4.DHCPv4 {
	req, err := dhcpv4.FromBytes(data)
	if err != nil {
		return nil
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return b.propose(req, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeInform:
		return b.inform(req)
	}
	return nil
}

// respondBoot answers a message at port 4011, where firmware asks that has its
// address already (PXE 2.1, 2.2.4).
func (b *booter) respondBoot(data []byte) *dhcpv4.DHCPv4 {
	req, err := dhcpv4.FromBytes(data)
	if err != nil {
		return nil
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
		return b.propose(req, dhcpv4.MessageTypeAck)
	}
	return nil
}

// propose tells firmware and iPXE what to boot, and gives no address.
func (b *booter) propose(req *dhcpv4.DHCPv4, typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	c, ok := identify(req)
	if !ok || c.program == programOther || c.program == programNode {
		return nil
	}
	file, ok := b.offer(c)
	if !ok {
		b.note(c, req, addressOf(req.ClientIPAddr), "not served")
		return nil
	}
	resp, err := b.reply(req, typ)
	if err != nil {
		return nil
	}
	b.amend(c, file, resp, true)
	b.note(c, req, addressOf(req.ClientIPAddr), "boots "+file)
	return resp
}

// inform answers a node that asks for its configuration.
func (b *booter) inform(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	c, ok := identify(req)
	if !ok || c.program != programNode || !addressOf(req.ClientIPAddr).IsValid() {
		return nil
	}
	if _, err := b.lookup(b.current(), c.id); err != nil {
		return nil
	}
	resp, err := b.reply(req, dhcpv4.MessageTypeAck)
	if err != nil {
		return nil
	}
	b.note(c, req, addressOf(req.ClientIPAddr), b.tellNode(c, resp))
	return resp
}

func (b *booter) reply(req *dhcpv4.DHCPv4, typ dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	resp, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(b.address.AsSlice())))
	if err != nil {
		return nil, err
	}
	resp.YourIPAddr, resp.ClientIPAddr = net.IPv4zero, req.ClientIPAddr
	return resp, nil
}

// note keeps what a machine asked and logs it.
func (b *booter) note(c client, req *dhcpv4.DHCPv4, address netip.Addr, answer string) {
	what := "DHCP " + req.MessageType().String() + " of " + c.program.String()
	if c.program == programPXE || c.program == programHTTP || c.program == programIPXE {
		what += ", " + c.arch.String()
	}
	b.record(c.id, address, what, answer)
}

// record keeps what a machine asked and logs it.
func (b *booter) record(id Identity, address netip.Addr, what, answer string) {
	name := ""
	if e, ok := b.current().find(id); ok {
		name = e.Name
	}
	label, name := b.machines.record(id, name, address, what, answer)
	log := b.log.With("machine", label)
	if name != "" {
		log = log.With("name", name)
	}
	log.Info(what, "answer", answer)
}

// addressOf is ip, invalid if it is none.
func addressOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if a = a.Unmap(); a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
