package dhcp

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/netstack/mac"
)

// FuzzServe feeds a server three hostile messages in a row and checks what must
// always hold.
func FuzzServe(f *testing.F) {
	seed := func(typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) []byte {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(guest(1).HW()), dhcpv4.WithMessageType(typ)}, mods...)...)
		if err != nil {
			f.Fatal(err)
		}
		return m.ToBytes()
	}
	discover := seed(dhcpv4.MessageTypeDiscover)
	request := seed(dhcpv4.MessageTypeRequest, asking("10.0.0.2"), of("10.0.0.1"), dhcpv4.WithOption(dhcpv4.OptHostName("x")))
	f.Add(discover, request, seed(dhcpv4.MessageTypeRelease, having("10.0.0.2")))
	f.Add(discover, request, seed(dhcpv4.MessageTypeDecline, asking("10.0.0.2")))
	f.Add(seed(dhcpv4.MessageTypeInform, having("10.0.0.3")), discover, seed(dhcpv4.MessageTypeRequest, having("10.0.0.5")))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		cfg := testConfig()
		cfg.Fixed = []Fixed{{MAC: guest(9), Address: netip.MustParseAddr("10.0.0.4")}}
		s, err := New(cfg, new(Memory), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1_800_000_000, 0)
		s.now = func() time.Time { return now }
		for _, msg := range [][]byte{a, b, c} {
			if resp := s.respond(msg); resp != nil {
				if _, err := dhcpv4.FromBytes(resp.ToBytes()); err != nil {
					t.Errorf("the answer is malformed: %v", err)
				}
			}
		}
		seen := make(map[netip.Addr]mac.Addr)
		for _, l := range s.Leases() {
			if !cfg.usable(l.Address) || l.MAC.Check() != nil {
				t.Errorf("lease %v", l)
			}
			if o, ok := seen[l.Address]; ok {
				t.Errorf("%s for %s and %s", l.Address, o, l.MAC)
			}
			if owner, ok := cfg.reserved(l.Address); ok && owner != l.MAC {
				t.Errorf("%s is reserved for %s, given to %s", l.Address, owner, l.MAC)
			}
			if l.Hostname != "" && !validHostname(l.Hostname) {
				t.Errorf("host name %q", l.Hostname)
			}
			seen[l.Address] = l.MAC
		}
	})
}
