package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const (
	// confirmEvery is the pause between tries to confirm a change of the uplink,
	// and confirmTry how long one may take: packets to an address that is gone
	// get no answer at all.
	confirmEvery = time.Second
	confirmTry   = 4 * time.Second
)

func (a *app) uplinkCmd() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Show how the node is connected", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showUplink(func(c *client) (*http.Response, error) { return c.GetUplink(cmd.Context()) })
		},
	}
	confirm := &cobra.Command{
		Use: "confirm", Short: "Keep a change of the uplink", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showUplink(func(c *client) (*http.Response, error) { return c.ConfirmUplink(cmd.Context()) })
		},
	}
	return group("uplink", "How the node itself is connected", show, a.uplinkSetCmd(), confirm)
}

func (a *app) uplinkSetCmd() *cobra.Command {
	var in spec.UplinkConfig
	var p spec.SetUplinkParams
	var noConfirm bool
	cmd := &cobra.Command{
		Use: "set dhcp|ADDRESS/LENGTH|default", Short: "Change how the node is connected", Args: exactArgs(1),
		Long: `Change how the node is connected. The change is reverted unless it is confirmed in time.
Over the network this command confirms it by itself, once it reaches the node at its new
address; from the node itself, once the uplink is up. "default" is what the kernel command
line says.`,
		Example: "  quantavirt system uplink set 192.0.2.7/24 --gateway 192.0.2.1 --dns 192.0.2.2\n  quantavirt system uplink set dhcp --mtu 9000",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "dhcp", "default":
				in.Mode = spec.UplinkConfigMode(args[0])
			default:
				if _, err := netip.ParsePrefix(args[0]); err != nil {
					return usage(cmd, fmt.Errorf("%q is none of dhcp, default, ADDRESS/LENGTH", args[0]))
				}
				in.Mode, in.Address = spec.UplinkConfigModeStatic, args[0]
			}
			if noConfirm {
				return a.showUplink(func(c *client) (*http.Response, error) { return c.SetUplink(cmd.Context(), &p, in) })
			}
			return a.setUplink(cmd.Context(), &p, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Interface, "interface", "", "the interface; the first physical Ethernet with a carrier if not given")
	f.StringVar(&in.Gateway, "gateway", "", "gateway of a static address")
	f.StringSliceVar(&in.DNS, "dns", nil, "name servers of a static address")
	f.IntVar(&in.MTU, "mtu", 0, "MTU of the interface in bytes")
	f.IntVar(&p.ConfirmSeconds, "confirm-seconds", 60, "time to confirm the change, 10 to 600")
	f.BoolVar(&noConfirm, "no-confirm", false, "leave it to: quantavirt system uplink confirm")
	return cmd
}

func (a *app) showUplink(do func(*client) (*http.Response, error)) error {
	ans, err := call[spec.Uplink](a, do)
	if err != nil {
		return err
	}
	return a.print(ans.raw, func(w io.Writer) { uplinkTable(w, ans.value) })
}

// setUplink makes the change and confirms it.
func (a *app) setUplink(ctx context.Context, p *spec.SetUplinkParams, in spec.UplinkConfig) error {
	ans, err := call[spec.Uplink](a, func(c *client) (*http.Response, error) { return c.SetUplink(ctx, p, in) })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.ConfirmSeconds)*time.Second)
	defer cancel()
	places := a.places(ans.value, in)
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		for _, host := range places {
			var done answer[spec.Uplink]
			if done, err = a.confirmAt(ctx, host); err == nil {
				return a.print(done.raw, func(w io.Writer) {
					fmt.Fprintf(w, "The change is confirmed; the node answers at %s.\n", host)
					uplinkTable(w, done.value)
				})
			}
			if code := qverr.CodeOf(err); code == qverr.State || code == qverr.Auth || code == qverr.Perm {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return qverr.New(qverr.Timeout, "the change could not be confirmed within %d s, and the node goes back to what it had: %w", p.ConfirmSeconds, err).
				WithHint("look at address, gateway and cabling; tried: %s", strings.Join(places, ", "))
		}
	}
}

// places are where the node may be found after the change: at its new address,
// and where it was.
func (a *app) places(u spec.Uplink, in spec.UplinkConfig) []string {
	host := a.api.target.name
	old, err := url.Parse(host)
	if err != nil || old.Scheme != "https" {
		return []string{host}
	}
	address := in.Address
	if in.Mode == spec.UplinkConfigModeDefault && u.Pending != nil {
		address = u.Pending.Config.Address
	}
	prefix, err := netip.ParsePrefix(address)
	if err != nil || prefix.Addr().String() == old.Hostname() {
		return []string{host}
	}
	return []string{"https://" + net.JoinHostPort(prefix.Addr().String(), old.Port()), host}
}

// confirmAt confirms over a connection of its own.
func (a *app) confirmAt(ctx context.Context, host string) (answer[spec.Uplink], error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	there, err := a.at(host)
	if err != nil {
		return answer[spec.Uplink]{}, err
	}
	return call[spec.Uplink](there, func(c *client) (*http.Response, error) { return c.ConfirmUplink(ctx) })
}

// at is the same command at another address of the same node.
func (a *app) at(host string) (*app, error) {
	t, err := parseTarget(host)
	if err != nil {
		return nil, err
	}
	t.trust, t.token = a.api.target.trust, a.api.target.token
	there := *a
	there.api, err = newClient(t)
	return &there, err
}

func uplinkTable(w io.Writer, u spec.Uplink) {
	row(w, "Configured", uplinkConfig(u.Config)+" ("+string(u.Source)+")")
	if p := u.Pending; p != nil {
		row(w, "Changing to", fmt.Sprintf("%s, reverted in %d s unless confirmed", uplinkConfig(p.Config), p.SecondsLeft))
	}
	row(w, "Uplink", uplink(u.Status))
	if u.Status.Problem.Code != 0 {
		row(w, "Problem", problem(u.Status.Problem))
	}
}

func uplinkConfig(c spec.UplinkConfig) string {
	s := string(c.Mode)
	if c.Address != "" {
		s = c.Address
	}
	if c.Gateway != "" {
		s += ", gateway " + c.Gateway
	}
	if len(c.DNS) > 0 {
		s += ", DNS " + strings.Join(c.DNS, " ")
	}
	if c.Interface != "" {
		s += ", on " + c.Interface
	}
	if c.MTU != 0 {
		s += fmt.Sprintf(", MTU %d", c.MTU)
	}
	return s
}
