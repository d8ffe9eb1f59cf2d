package uplink

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/rtnl"
)

// Options of New.
type Options struct {
	Logger     *slog.Logger
	ResolvConf string       // file for the name servers; empty: none
	LeaseFile  string       // keeps the lease over a restart of the process; empty: none
	Hostname   string       // sent to the server; empty: not sent
	BootCard   mac.Addr     // card that the node was booted from: waited for before others are taken; zero: none
	OnChange   func(Status) // called after each change, one call at a time; may be nil
}

// Uplink keeps one interface configured while Run runs.
type Uplink struct {
	cfg  Config
	opts Options
	log  *slog.Logger
	time timing

	mu      sync.Mutex
	status  Status
	settled chan struct{}
	once    sync.Once

	link netlink.Link // last one served, Run's own
	last *lease       // lease on it, Run's own
}

// timing is replaced by tests.
type timing struct {
	grace     time.Duration // for an interface and its carrier to appear before that is a problem
	failover  time.Duration // for a lost carrier to come back before another interface is tried
	attempts  int           // transmissions before silence is a problem
	first     time.Duration // wait after the first transmission; doubles
	max       time.Duration // longest wait
	renewWait time.Duration // shortest wait between renewals (RFC 2131, 4.4.5)
}

// RFC 2131, 4.1 begins with 4 s: too slow for a boot over a switch that
// answers within milliseconds.
var defaultTiming = timing{
	grace: 5 * time.Second, failover: 5 * time.Second, attempts: 4,
	first: 500 * time.Millisecond, max: 64 * time.Second, renewWait: time.Minute,
}

// retryPause is the wait after an error that is not the network's.
const retryPause = time.Second

// New makes an uplink that has not touched anything yet.
func New(cfg Config, opts Options) *Uplink {
	if cfg.Mode == "" {
		cfg.Mode = DHCP
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	st := Status{State: Down, Mode: cfg.Mode}
	if cfg.Mode == Off {
		st.State = None
	}
	return &Uplink{cfg: cfg, opts: opts, log: opts.Logger, time: defaultTiming, status: st, settled: make(chan struct{})}
}

// Check refuses a configuration that cannot work. Errors carry QV_ERR_INVAL or
// QV_NET_ERR_MTU.
func (c Config) Check() error {
	switch c.Mode {
	case "", DHCP, Off:
	case StaticMode:
		if err := c.Static.Check(); err != nil {
			return err
		}
	default:
		return qverr.New(qverr.Inval, "uplink mode %q is none of dhcp, static, off", c.Mode)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > 65535) {
		return qverr.New(qverr.NetMTU, "uplink MTU %d is not between %d and 65535", c.MTU, minMTU)
	}
	return nil
}

// Status is what the uplink really is.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// Settled is closed when the uplink has its address or its failure is known.
func (u *Uplink) Settled() <-chan struct{} { return u.settled }

// Run configures the uplink and keeps it so until ctx ends. It leaves the
// interface as it is then, for a next one to adopt. The error is ctx's, or that
// of a netlink subscription that cannot be had.
func (u *Uplink) Run(ctx context.Context) error {
	if err := loopbackUp(); err != nil {
		u.log.Error("loopback not up", "err", err)
	}
	if u.cfg.Mode == Off {
		u.set(Status{State: None, Mode: Off})
		u.settle()
		<-ctx.Done()
		return ctx.Err()
	}
	wctx, stop := context.WithCancel(ctx)
	w, err := rtnl.Watch(wctx)
	if err != nil {
		stop()
		return err
	}
	defer func() { stop(); w.Wait() }()
	avoid := 0
	for {
		link, err := u.pick(ctx, w, avoid)
		if err != nil {
			return err
		}
		u.switchTo(link)
		avoid = 0
		switch err := u.serve(ctx, w, link); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errSilent):
			avoid = link.Attrs().Index
		case errors.Is(err, context.Canceled): // the link was lost
		default:
			u.problem(link, qverr.From(err))
			if !sleep(ctx, retryPause) {
				return ctx.Err()
			}
		}
	}
}

// Teardown removes the address from the interface that Run served, when the
// uplink moves to another one. Run must have ended.
func (u *Uplink) Teardown() error {
	if u.link == nil {
		return nil
	}
	forgetLease(u.opts.LeaseFile)
	return deconfigure(u.link)
}

func loopbackUp() error {
	lo, err := rtnl.Link("lo")
	if err != nil || lo == nil || rtnl.IsUp(lo) {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// switchTo takes the address from an interface that is not used any more.
func (u *Uplink) switchTo(link netlink.Link) {
	if u.link != nil && u.link.Attrs().Index != link.Attrs().Index {
		u.log.Info("uplink moves", "from", u.link.Attrs().Name, "to", link.Attrs().Name)
		if err := deconfigure(u.link); err != nil {
			u.log.Warn("old uplink keeps its address", "err", err)
		}
		u.last = nil
	}
	u.link = link
}

// serve configures one interface until its carrier is lost or ctx ends.
func (u *Uplink) serve(ctx context.Context, w *rtnl.Watcher, link netlink.Link) error {
	lctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() { defer close(done); cancel(lost(lctx, w, link)) }()
	defer func() { cancel(nil); <-done }()
	if err := setMTU(link, u.cfg.MTU); err != nil {
		u.log.Error("uplink MTU", "err", err)
	}
	var err error
	if u.cfg.Mode == StaticMode {
		err = u.static(lctx, link)
	} else {
		err = u.dhcp(lctx, w, link)
	}
	if cause := context.Cause(lctx); ctx.Err() == nil && cause != nil {
		u.problem(link, qverr.From(cause))
	}
	return err
}

// lost waits until a link is gone or has no carrier, and says which.
func lost(ctx context.Context, w *rtnl.Watcher, link netlink.Link) error {
	la := link.Attrs()
	for {
		links, changed, err := w.Links()
		if err != nil {
			return qverr.New(qverr.NetCreate, "watch %s: %w", la.Name, err)
		}
		now := byIndex(links, la.Index)
		switch {
		case now == nil || now.Attrs().Name != la.Name || now.Attrs().HardwareAddr.String() != la.HardwareAddr.String():
			return qverr.New(qverr.NoDev, "uplink %s is gone", la.Name)
		case !rtnl.HasCarrier(now):
			return qverr.New(qverr.NoDev, "uplink %s has lost its carrier", la.Name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *Uplink) static(ctx context.Context, link netlink.Link) error {
	s := u.cfg.Static
	c := netConfig{address: s.Address, gateway: s.Gateway, dns: s.DNS}
	if err := configure(link, c, 0, protoStatic); err != nil {
		return err
	}
	u.up(link, c, nil)
	<-ctx.Done()
	return ctx.Err()
}

// up records that the uplink works.
func (u *Uplink) up(link netlink.Link, c netConfig, l *lease) {
	if err := writeResolvConf(u.opts.ResolvConf, c.dns); err != nil {
		u.log.Error("name servers not written", "err", err)
	}
	st := u.base(link)
	st.State, st.Address, st.Gateway, st.DNS = Up, c.address, c.gateway, c.dns
	if l != nil {
		st.Lease = l.info()
	}
	u.set(st)
	u.settle()
}

// problem records why the uplink does not work.
func (u *Uplink) problem(link netlink.Link, p *qverr.Error) {
	u.down(link, p)
	u.settle()
}

// down is problem for a state that the next message may end.
func (u *Uplink) down(link netlink.Link, p *qverr.Error) {
	st := Status{State: Down, Mode: u.cfg.Mode, Interface: u.cfg.Interface, Problem: p}
	if link != nil {
		st = u.base(link)
		st.State, st.Problem = Down, p
	}
	if old := u.Status().Problem; old == nil || old.Message != p.Message {
		u.log.Error("uplink down", "interface", st.Interface, "err", p)
	}
	u.set(st)
}

func (u *Uplink) base(link netlink.Link) Status {
	la := link.Attrs()
	st := Status{Mode: u.cfg.Mode, Interface: la.Name, MTU: la.MTU}
	if len(la.HardwareAddr) == len(st.MAC) {
		st.MAC = mac.Addr(la.HardwareAddr)
	}
	if now, err := rtnl.Link(la.Name); err == nil && now != nil {
		st.MTU = now.Attrs().MTU
	}
	return st
}

func (u *Uplink) set(st Status) {
	u.mu.Lock()
	u.status = st
	u.mu.Unlock()
	if u.opts.OnChange != nil {
		u.opts.OnChange(st)
	}
}

func (u *Uplink) settle() { u.once.Do(func() { close(u.settled) }) }

// sleep waits; false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
