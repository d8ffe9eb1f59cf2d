package netboot

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// responder answers the messages of one port in proxy mode, one after the
// other: a flood costs time, not memory.
type responder struct {
	conn    *net.UDPConn
	source  netip.Addr // of the answers
	respond func([]byte) *dhcpv4.DHCPv4
	log     *slog.Logger
}

// serve ends when the socket is closed.
func (r *responder) serve() error {
	buf := make([]byte, 2048) // larger than any message over Ethernet; the rest is cut
	source := (&ipv4.ControlMessage{Src: r.source.AsSlice()}).Marshal()
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.ENETDOWN):
			continue // the interface is down for a moment
		case err != nil:
			return qverr.New(qverr.NetDHCP, "read: %w", err)
		}
		resp := r.respond(buf[:n])
		if resp == nil {
			continue
		}
		if _, _, err := r.conn.WriteMsgUDPAddrPort(resp.ToBytes(), source, destination(from)); err != nil {
			r.log.Warn("DHCP answer lost", "machine", resp.ClientHWAddr.String(), "err", qverr.New(qverr.NetDHCP, "send: %w", err))
		}
	}
}

// destination is where an answer goes: back to a client that has its address,
// to everybody if it has none yet.
func destination(from netip.AddrPort) netip.AddrPort {
	a := from.Addr().Unmap()
	if !a.IsValid() || a.IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ClientPort)
	}
	return netip.AddrPortFrom(a, from.Port())
}
