package uplink

import (
	"context"
	"errors"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

// Inform asks all DHCP servers for more than an address (DHCPINFORM, RFC 2131,
// 4.4.3), three times within 3.5 s, and returns the first acknowledgement that
// match takes. QV_ERR_NODEV while the uplink has no address, QV_ERR_TIMEOUT if
// there is no such answer.
func (u *Uplink) Inform(ctx context.Context, options []dhcpv4.Option, match func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	st := u.Status()
	if st.State != Up {
		return nil, qverr.New(qverr.NoDev, "ask the DHCP servers: the uplink has no address")
	}
	link, err := rtnl.Link(st.Interface)
	if err == nil && link == nil {
		err = errors.New("it is gone")
	}
	if err != nil {
		return nil, qverr.New(qverr.NoDev, "ask the DHCP servers on %s: %w", st.Interface, err)
	}
	conn, err := listen(st.Interface, st.Address.Addr())
	if err != nil {
		return nil, qverr.New(qverr.NetDHCP, "ask the DHCP servers on %s: %w", st.Interface, err)
	}
	client, err := nclient4.NewWithConn(conn, link.Attrs().HardwareAddr, nclient4.WithRetry(1), nclient4.WithTimeout(retryForever))
	if err != nil {
		return nil, qverr.New(qverr.NetDHCP, "ask the DHCP servers on %s: %w", st.Interface, errors.Join(err, conn.Close()))
	}
	defer client.Close()
	req, err := dhcpv4.New(dhcpv4.WithHwAddr(link.Attrs().HardwareAddr), dhcpv4.WithMessageType(dhcpv4.MessageTypeInform),
		dhcpv4.WithClientIP(st.Address.Addr().AsSlice()), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)))
	if err != nil {
		return nil, qverr.New(qverr.NetDHCP, "make a DHCP message: %w", err)
	}
	for _, o := range options {
		req.UpdateOption(o)
	}
	for n := range burst {
		var ack *dhcpv4.DHCPv4
		ack, err = ask(ctx, client, nclient4.DefaultServers, req, u.wait(n), func(m *dhcpv4.DHCPv4) bool {
			return m.MessageType() == dhcpv4.MessageTypeAck && match(m)
		})
		if err == nil || ctx.Err() != nil {
			return ack, err
		}
	}
	return nil, qverr.New(qverr.Timeout, "ask the DHCP servers on %s: %w", st.Interface, err)
}
