package network

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

const (
	// ConfirmTime is how long a change of the uplink waits to be confirmed,
	// unless the request says otherwise.
	ConfirmTime = time.Minute
	// answerTime is for the answer to leave before the address may.
	answerTime = 250 * time.Millisecond
	// applyTime bounds how long a change may take.
	applyTime = 30 * time.Second
)

// control is the wanted uplink: what is confirmed, and a change that is reverted
// unless that is confirmed too.
type control struct {
	path  string // of the file, "" for none
	clock clock

	mu      sync.Mutex
	open    bool // record is as the file has it
	record  uplinkRecord
	wrong   error                 // with the file
	base    netstack.UplinkConfig // of the kernel command line or the node's configuration
	source  spec.UplinkSource     // which of them
	applied bool                  // the change that waits was made
	timers  []*time.Timer
	closed  bool
}

// openUplink reads what was set over the API, at the first call, and returns what
// the uplink is to be. A change whose time is over, or that is of another boot, is
// dropped. configured says that the node's configuration is known.
func (s *Service) openUplink(options map[string]string, configured bool) (netstack.UplinkConfig, error) {
	s.mu.Lock()
	first := s.want.Uplink
	s.mu.Unlock()
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		c.record, c.wrong = readUplink(c.path)
	}
	if f := c.record.First; f != nil && !configured {
		first = *f
	}
	var err error
	c.base, c.source, err = baseUplink(first, options)
	if c.wrong != nil {
		err = c.wrong
	}
	again := c.open
	c.open = true
	if configured {
		s.keepFirst(first)
	}
	p := c.record.Pending
	switch {
	case p == nil:
		return c.resolve(c.record.Config), err
	case again && !c.applied: // it is about to be made
		return c.resolve(c.record.Config), err
	case p.running(c.clock):
		c.applied = true
		if !again {
			s.after(p.Deadline-c.clock.now(), s.revert)
		}
		return c.resolve(p.Config), err
	}
	s.log.Warn("a change of the uplink was not confirmed in time and is dropped")
	return s.dropPending(), err
}

// keepFirst notes what the node's configuration says for those who read only the
// file.
func (s *Service) keepFirst(first netstack.UplinkConfig) {
	c := &s.control
	var keep *netstack.UplinkConfig
	if first.Mode != "" || first.Interface != "" || first.MTU != 0 {
		keep = &first
	}
	if reflect.DeepEqual(keep, c.record.First) {
		return
	}
	c.record.First = keep
	if err := writeUplink(c.path, c.record); err != nil {
		s.log.Error("note the uplink's configuration", "err", err)
	}
}

// resolve is a configuration, or the one that the node has without the API. mu is
// held, as by all below.
func (c *control) resolve(cfg *netstack.UplinkConfig) netstack.UplinkConfig {
	if cfg == nil {
		return c.base
	}
	return *cfg
}

// dropPending forgets the change that waits, and returns what there was before.
func (s *Service) dropPending() netstack.UplinkConfig {
	c := &s.control
	old := c.resolve(c.record.Config)
	if p := c.record.Pending; old.MTU == 0 && p != nil && p.BootID == c.clock.bootID {
		old.MTU = p.OldMTU // the interface keeps the one of the change otherwise
	}
	c.record.Pending, c.applied = nil, false
	if err := writeUplink(c.path, c.record); err != nil {
		s.log.Error("forget a change of the uplink", "err", err) // its time is over all the same
	}
	return old
}

func (s *Service) after(d time.Duration, fn func()) {
	s.control.timers = append(s.control.timers, time.AfterFunc(d, fn))
}

// stopTimers ends what waits; what runs ends by itself, as it finds nothing to do.
func (c *control) stopTimers() {
	for _, t := range c.timers {
		t.Stop()
	}
	c.timers = nil
}

// UplinkState is the configuration of the uplink and what it really is.
func (s *Service) UplinkState() spec.Uplink {
	status := s.Uplink()
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	u := spec.Uplink{Config: showUplink(c.resolve(c.record.Config)), Status: status, Source: c.source}
	if c.record.Config != nil {
		u.Source = spec.UplinkSourceAPI
	}
	if p := c.record.Pending; p.running(c.clock) {
		left := p.Deadline - c.clock.now()
		u.Pending = &spec.UplinkPending{Config: showUplink(c.resolve(p.Config)), SecondsLeft: int(left.Round(time.Second).Seconds())}
	}
	return u
}

// SetUplink changes the uplink soon after it has returned, and changes it back
// unless ConfirmUplink is called in time. QV_ERR_CONFIG: it cannot work.
func (s *Service) SetUplink(in spec.UplinkConfig, limit time.Duration) (spec.Uplink, error) {
	if s.stack == nil {
		return spec.Uplink{}, errOff()
	}
	cfg, err := s.readConfig(in)
	if err != nil {
		return spec.Uplink{}, err
	}
	c := &s.control
	c.mu.Lock()
	p := &pendingUplink{Config: cfg, BootID: c.clock.bootID, Deadline: c.clock.now() + limit, OldMTU: s.stack.Uplink().MTU}
	if before := c.record.Pending; before.running(c.clock) {
		p.OldMTU = before.OldMTU
	}
	next := c.record
	next.Pending = p
	if err := writeUplink(c.path, next); err != nil {
		c.mu.Unlock()
		return spec.Uplink{}, err
	}
	c.record, c.applied = next, false
	c.stopTimers()
	s.after(answerTime, func() { s.apply(p) })
	s.after(limit, s.revert)
	c.mu.Unlock()
	s.log.Warn("the uplink is changed", "to", showUplink(c.resolve(cfg)), "confirm_within", limit)
	return s.UplinkState(), nil
}

// apply makes the change that waits, unless another one does by now.
func (s *Service) apply(p *pendingUplink) {
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.record.Pending != p {
		return
	}
	s.use(c.resolve(p.Config))
	c.applied = true
}

// revert ends the change that waits when its time is over.
func (s *Service) revert() {
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.record.Pending == nil || c.record.Pending.running(c.clock) {
		return
	}
	c.stopTimers()
	s.use(s.dropPending())
	s.log.Error("the uplink is as before", "err", qverr.New(qverr.Timeout, "a change of the uplink was not confirmed in time"))
}

// use brings the uplink to a configuration.
func (s *Service) use(cfg netstack.UplinkConfig) {
	ctx, cancel := context.WithTimeout(context.Background(), applyTime)
	defer cancel()
	if err := s.stack.Apply(ctx, s.wanted(cfg)); err != nil {
		s.log.Error("change the uplink", "err", err)
	}
}

// wanted is the node's network with an uplink.
func (s *Service) wanted(cfg netstack.UplinkConfig) netstack.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return netstack.State{Uplink: cfg, Networks: s.want.Networks}
}

// ConfirmUplink keeps the change that waits. QV_ERR_STATE: none does;
// QV_ERR_AGAIN: the uplink is not up with it.
func (s *Service) ConfirmUplink() (spec.Uplink, error) {
	if s.stack == nil {
		return spec.Uplink{}, errOff()
	}
	if err := s.confirm(); err != nil {
		return spec.Uplink{}, err
	}
	s.log.Info("the change of the uplink is confirmed")
	return s.UplinkState(), nil
}

func (s *Service) confirm() error {
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.record.Pending
	if !p.running(c.clock) {
		return qverr.New(qverr.State, "no change of the uplink waits to be confirmed").
			WithHint("see how it is: quantavirt system uplink show")
	}
	if up := s.stack.Uplink(); !c.applied || up.State != uplink.Up {
		return qverr.New(qverr.Again, "the uplink is not up yet with what is to be confirmed")
	}
	next := c.record
	next.Config, next.Pending = p.Config, nil
	if err := writeUplink(c.path, next); err != nil {
		return err
	}
	c.record, c.applied = next, false
	c.stopTimers()
	return nil
}

// closeUplink leaves a change that waits to the next daemon.
func (s *Service) closeUplink() {
	c := &s.control
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.stopTimers()
}

func badUplink(path, format string, args ...any) error {
	return qverr.New(qverr.Config, format, args...).With("path", path)
}

// readConfig checks what a request wants; nil is what the node has without the API.
func (s *Service) readConfig(in spec.UplinkConfig) (*netstack.UplinkConfig, error) {
	for _, f := range []struct {
		path         string
		given        bool
		needs, never spec.UplinkConfigMode
	}{
		{"address", in.Address != "", spec.UplinkConfigModeStatic, ""},
		{"gateway", in.Gateway != "", spec.UplinkConfigModeStatic, ""},
		{"dns", len(in.DNS) > 0, spec.UplinkConfigModeStatic, ""},
		{"interface", in.Interface != "", "", spec.UplinkConfigModeDefault},
		{"mtu", in.MTU != 0, "", spec.UplinkConfigModeDefault},
	} {
		if f.given && (f.needs != "" && f.needs != in.Mode || f.never == in.Mode) {
			return nil, badUplink(f.path, "%s does not go with mode %s", f.path, in.Mode)
		}
	}
	if in.Mode == spec.UplinkConfigModeDefault {
		return nil, nil
	}
	if in.Interface != "" {
		if _, err := net.InterfaceByName(in.Interface); err != nil {
			return nil, badUplink("interface", "there is no interface %.15q", in.Interface)
		}
	}
	cfg := &netstack.UplinkConfig{Mode: uplink.Mode(in.Mode), Interface: in.Interface, MTU: in.MTU}
	if in.Mode == spec.UplinkConfigModeStatic {
		var err error
		if cfg.Static, err = s.readStatic(in); err != nil {
			return nil, err
		}
	}
	if err := cfg.Check(); err != nil {
		path := "address"
		if qverr.CodeOf(err) == qverr.NetMTU {
			path = "mtu"
		}
		return nil, badUplink(path, "%w", err)
	}
	return cfg, nil
}

func (s *Service) readStatic(in spec.UplinkConfig) (uplink.Static, error) {
	var st uplink.Static
	var err error
	if st.Address, err = netip.ParsePrefix(in.Address); err != nil {
		return st, badUplink("address", "address: %w", err)
	}
	if err := uplink.CheckHost(st.Address); err != nil {
		return st, badUplink("address", "address: %w", err)
	}
	for _, n := range s.stack.Status().Networks {
		if n.Subnet.Overlaps(st.Address) {
			return st, badUplink("address", "%s overlaps subnet %s of network %s", st.Address, n.Subnet.Masked(), n.Name)
		}
	}
	if in.Gateway != "" {
		if st.Gateway, err = netip.ParseAddr(in.Gateway); err != nil {
			return st, badUplink("gateway", "gateway: %w", err)
		}
		if err := (uplink.Static{Address: st.Address, Gateway: st.Gateway}).Check(); err != nil {
			return st, badUplink("gateway", "%w", err)
		}
	}
	for i, d := range in.DNS {
		path := "dns[" + string(rune('0'+i)) + "]"
		a, err := netip.ParseAddr(d)
		if err != nil {
			return st, badUplink(path, "name server: %w", err)
		}
		if err := (uplink.Static{Address: st.Address, DNS: []netip.Addr{a}}).Check(); err != nil {
			return st, badUplink(path, "%w", err)
		}
		st.DNS = append(st.DNS, a)
	}
	return st, nil
}

// showUplink is a configuration as the API has it.
func showUplink(cfg netstack.UplinkConfig) spec.UplinkConfig {
	out := spec.UplinkConfig{Mode: spec.UplinkConfigMode(cfg.Mode), Interface: cfg.Interface, MTU: cfg.MTU}
	if cfg.Mode == "" {
		out.Mode = spec.UplinkConfigModeDHCP
	}
	if cfg.Mode != uplink.StaticMode {
		return out
	}
	out.Address = cfg.Static.Address.String()
	if cfg.Static.Gateway.IsValid() {
		out.Gateway = cfg.Static.Gateway.String()
	}
	for _, d := range cfg.Static.DNS {
		out.DNS = append(out.DNS, d.String())
	}
	return out
}
