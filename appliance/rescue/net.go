package rescue

import (
	"context"
	"net"
	"net/netip"
	"time"

	"path/filepath"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/network"
	"quantavirt/internal/initapi"
	"quantavirt/internal/version"
	"quantavirt/netstack/uplink"
)

const (
	resolvConf = "/etc/resolv.conf"
	// leaseFile is the daemon's: a lease is gone on with.
	leaseFile = "uplink-lease.json"
	// settleTime is how long the banner waits for an address.
	settleTime = 20 * time.Second
)

// connection is the node's uplink.
type connection struct {
	up      *uplink.Uplink // nil when the network is left alone
	changed chan struct{}
}

// start begins to bring the uplink up, as it was confirmed last.
func (c *connection) start(r *rescue) {
	c.changed = make(chan struct{}, 1)
	if r.o.noNetwork {
		return
	}
	type result struct {
		cfg uplink.Config
		err error
	}
	got := make(chan result, 1)
	go func() {
		cfg, err := network.ConfirmedUplink(r.o.dataDir, r.boot.Options)
		got <- result{cfg, err}
	}()
	late := time.NewTimer(r.o.patience)
	defer late.Stop()
	var cfg uplink.Config
	select {
	case g := <-got:
		cfg = g.cfg
		if g.err != nil {
			r.log.Error("the uplink is not as configured", "err", g.err)
		}
	case <-late.C:
		r.log.Error("the configuration of the uplink cannot be read: DHCP is tried")
	}
	c.up = uplink.New(cfg, uplink.Options{
		Logger: r.logger("network"), ResolvConf: resolvConf, LeaseFile: filepath.Join(r.o.runDir, leaseFile), Hostname: r.boot.Hostname,
		BootCard: network.Card(r.boot),
		OnChange: func(uplink.Status) {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		},
	})
	r.wg.Go(func() {
		for r.ctx.Err() == nil {
			err := c.up.Run(r.ctx)
			if r.ctx.Err() != nil {
				return
			}
			r.log.Error("uplink stopped", "err", err)
			select {
			case <-r.ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

func (c *connection) info() spec.UplinkInfo {
	if c.up == nil {
		return network.LocalUplink()
	}
	return network.ShowUplink(c.up.Status())
}

func (c *connection) address() (netip.Addr, bool) {
	for _, a := range c.info().Addresses {
		if p, err := netip.ParsePrefix(a); err == nil {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// announce shows the banner once the node has an address, and again when that
// changes.
func (r *rescue) announce() {
	if up := r.net.up; up != nil {
		late := time.NewTimer(settleTime)
		defer late.Stop()
		select {
		case <-up.Settled():
		case <-late.C:
		case <-r.ctx.Done():
			return
		}
	}
	for shown := ""; ; {
		var addrs []netip.Addr
		if a, ok := r.net.address(); ok {
			addrs = append(addrs, a)
		}
		r.ca.SetNames([]string{r.hostname()}, addrs)
		if url := r.url(); url != shown {
			shown = url
			r.show(url)
		}
		select {
		case <-r.net.changed:
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *rescue) hostname() string {
	if r.boot.Hostname != "" {
		return r.boot.Hostname
	}
	return "quantavirt"
}

func (r *rescue) url() string {
	host, port, err := net.SplitHostPort(r.o.listen)
	if err != nil {
		return "unix"
	}
	if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
		host = "127.0.0.1"
		if a, ok := r.net.address(); ok {
			host = a.String()
		}
	}
	return "https://" + net.JoinHostPort(host, port)
}

// show puts the banner on the consoles. Its lines that begin with "quantavirt:" are
// for machines.
func (r *rescue) show(url string) {
	lines := []string{"QuantaVirt " + version.Version + " on " + r.hostname() + ": RESCUE MODE"}
	if b := r.boot.Rescue; b != nil {
		lines = append(lines, "  "+b.Reason)
	}
	if r.secret != "" {
		lines = append(lines, "quantavirt: token "+r.secret, "  made for this rescue, as no other token is known")
	}
	lines = append(lines, "quantavirt: rescue url="+url+" ca="+r.ca.Fingerprint())
	ctx, cancel := context.WithTimeout(r.ctx, r.o.patience)
	defer cancel()
	if err := r.init.Console(ctx, initapi.Banner{Lines: lines}); err != nil {
		r.log.Error("show the banner", "err", err)
	}
	r.log.Info("the node is in rescue mode", "url", url, "authority", r.ca.Fingerprint())
}
