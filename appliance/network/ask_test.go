package network

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/configdhcp"
	"quantavirt/internal/initapi"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

// The first answer of the right vendor class counts, whoever else answers, and
// silence is no error.
func TestAskConfiguration(t *testing.T) {
	message := func(opts ...dhcpv4.Option) *dhcpv4.DHCPv4 {
		return &dhcpv4.DHCPv4{Options: dhcpv4.OptionsFromList(opts...)}
	}
	up := netstack.UplinkStatus{State: uplink.Up, Address: netip.MustParsePrefix("10.0.0.7/24")}
	for name, c := range map[string]struct {
		answers []*dhcpv4.DHCPv4
		url     string
	}{
		"silence":           {nil, ""},
		"another server":    {[]*dhcpv4.DHCPv4{message(dhcpv4.OptClassIdentifier("PXEClient"))}, ""},
		"it says":           {[]*dhcpv4.DHCPv4{message(), message(configdhcp.Answer("http://10.0.0.1/config/x")...)}, "http://10.0.0.1/config/x"},
		"it says that none": {[]*dhcpv4.DHCPv4{message(configdhcp.Answer("")...), message(configdhcp.Answer("http://late/")...)}, ""},
	} {
		k := &stack{answers: c.answers, status: netstack.Status{Uplink: up}}
		s, _ := testService(t, k)
		if url, err := s.AskConfiguration(t.Context()); url != c.url || err != nil {
			t.Errorf("%s: %q, %v", name, url, err)
		}
	}
}

// The uplink's address may come while it is waited for, or not at all.
func TestAskWaits(t *testing.T) {
	k := &stack{answers: []*dhcpv4.DHCPv4{{Options: dhcpv4.OptionsFromList(configdhcp.Answer("http://x/")...)}}}
	s, _ := testService(t, k)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan string)
	ask := func() {
		url, err := s.AskConfiguration(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		done <- url
	}
	go ask()
	k.mu.Lock()
	k.status.Uplink = netstack.UplinkStatus{State: uplink.Up, Address: netip.MustParsePrefix("10.0.0.7/24")}
	k.mu.Unlock()
	for url := ""; url == ""; { // it may not listen yet
		s.changed()
		select {
		case url = <-done:
			if url != "http://x/" {
				t.Fatalf("%q", url)
			}
		default:
			runtime.Gosched()
		}
	}
	k.mu.Lock()
	k.status.Uplink = netstack.UplinkStatus{}
	k.mu.Unlock()
	go ask()
	cancel()
	if url := <-done; url != "" {
		t.Errorf("without an address: %q", url)
	}
}

func TestCard(t *testing.T) {
	if got := Card(initapi.Boot{Card: "52:54:00:71:76:01"}); got != (netstack.MAC{0x52, 0x54, 0, 0x71, 0x76, 1}) {
		t.Errorf("%v", got)
	}
	if got := Card(initapi.Boot{}); !got.IsZero() {
		t.Errorf("%v", got)
	}
}
