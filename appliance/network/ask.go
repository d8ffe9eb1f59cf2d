package network

import (
	"context"
	"errors"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/configdhcp"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/mac"
)

// askTime is how long the uplink has to get its address before nobody is asked.
const askTime = 30 * time.Second

// Card is the network card that the node was booted from, zero for none.
func Card(boot initapi.Boot) netstack.MAC {
	m, _ := mac.Parse(boot.Card) // "" if it was booted from something else
	return m
}

// AskConfiguration asks the uplink's network where the node's configuration is, as
// package configdhcp has it. "" if there is none or nobody answers, which is known
// after 34 s at the latest.
func (s *Service) AskConfiguration(ctx context.Context) (url string, err error) {
	if s.stack == nil || !s.awaitUplink(ctx) {
		return "", ctx.Err()
	}
	_, err = s.stack.Inform(ctx, configdhcp.Question(configdhcp.ThisMachine("/sys")), func(m *dhcpv4.DHCPv4) bool {
		told, ok := configdhcp.URL(m)
		if ok {
			url = told
		}
		return ok
	})
	if errors.Is(err, qverr.Timeout) {
		s.log.Info("nobody says where the configuration is", "err", err)
		err = nil
	}
	return url, err
}

// awaitUplink is false if the uplink gets no address within askTime.
func (s *Service) awaitUplink(ctx context.Context) bool {
	changed := make(chan struct{}, 1)
	s.OnChange(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	limit := time.NewTimer(askTime)
	defer limit.Stop()
	for {
		if _, ok := s.Address(); ok {
			return true
		}
		select {
		case <-changed:
		case <-limit.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
