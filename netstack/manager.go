package netstack

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/uplink"
)

// Back-off of a reconcile step that failed.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// leaseFile is the uplink's lease in Options.RunDir.
const leaseFile = "uplink-lease.json"

// Manager brings the kernel's network to the wanted State and keeps it there.
// Its methods may be called from any goroutine.
type Manager struct {
	opts Options
	log  *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // reconcile soon
	news   chan struct{} // call OnChange soon
	once   sync.Once     // starts the goroutines

	shown atomic.Pointer[uplink.Uplink] // that of up, for who does not wait for mu

	mu    sync.Mutex
	state State
	nets  map[string]*network // by id
	up    *runningUplink
	upIf  string       // interface to translate to, the last one known
	upNet netip.Prefix // uplink's address, the last one known
	dns   []netip.Addr // uplink's servers, the last ones known
}

// network is what the manager knows of one network.
type network struct {
	Network
	index   int // of the bridge
	server  *dhcp.Server
	tftp    *bootServer // nil while the node serves no files here
	problem *qverr.Error
}

type runningUplink struct {
	*uplink.Uplink
	cfg    UplinkConfig
	cancel context.CancelFunc
	done   chan struct{}
}

// New makes a manager that has not touched anything yet.
func New(opts Options) *Manager {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	opts.Logger = opts.Logger.With("subsystem", "network")
	if opts.Leases == nil {
		opts.Leases = new(dhcp.Memory)
	}
	m := &Manager{opts: opts, log: opts.Logger, nets: make(map[string]*network),
		kick: make(chan struct{}, 1), news: make(chan struct{}, 1)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Apply makes state the wanted state and reconciles at once. It returns when
// bridges, DHCP servers and rules are as wanted, or with the first problem
// (which Status shows too, and which is tried again in the background with
// back-off). It does not wait for the uplink: see Settled. A state that is
// wrong in itself (overlapping subnets, bad addresses) is refused with
// QV_NET_ERR_CREATE, QV_NET_ERR_MTU or QV_ERR_INVAL and changes nothing.
func (m *Manager) Apply(ctx context.Context, state State) error {
	state = normal(state)
	if err := check(state); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), m.ctx.Err()); err != nil {
		return qverr.New(qverr.State, "apply the network's state: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	m.startUplink()
	err := m.reconcile()
	m.once.Do(func() {
		m.wg.Add(2)
		go m.run()
		go m.notify()
	})
	m.wake(m.kick)
	m.wake(m.news)
	return err
}

// Connect starts the uplink alone, for who does not know the networks yet. Apply
// goes on from there. Errors are those of Apply.
func (m *Manager) Connect(want UplinkConfig) error {
	want = normal(State{Uplink: want}).Uplink
	if err := want.Check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Uplink = want
	m.startUplink()
	return nil
}

// startUplink replaces the running uplink if another one is wanted; mu is held.
func (m *Manager) startUplink() {
	want := m.state.Uplink
	if m.up == nil { // what an earlier process left must not flap
		m.upIf, m.dns = uplink.KnownInterface(want), uplink.KnownDNS(m.opts.ResolvConf)
	}
	if m.up != nil {
		if reflect.DeepEqual(m.up.cfg, want) {
			return
		}
		m.up.cancel()
		<-m.up.done
		if want.Mode == uplink.Off || want.Interface != "" && !m.up.Status().On(want.Interface) {
			if err := m.up.Teardown(); err != nil {
				m.log.Error("old uplink keeps its address", "err", err)
			}
		}
	}
	file := ""
	if m.opts.RunDir != "" {
		file = filepath.Join(m.opts.RunDir, leaseFile)
	}
	ctx, cancel := context.WithCancel(m.ctx)
	up := &runningUplink{cfg: want, cancel: cancel, done: make(chan struct{})}
	up.Uplink = uplink.New(want, uplink.Options{Logger: m.log, ResolvConf: m.opts.ResolvConf, LeaseFile: file,
		Hostname: m.opts.Hostname, BootCard: m.opts.BootCard, OnChange: func(UplinkStatus) { m.wake(m.kick); m.wake(m.news) }})
	m.up = up
	m.shown.Store(up.Uplink)
	go func() {
		defer close(up.done)
		delay := firstRetry
		for {
			err := up.Run(ctx)
			if ctx.Err() != nil {
				return
			}
			m.log.Error("uplink stopped", "err", err)
			if !pause(ctx, delay) {
				return
			}
			delay = min(2*delay, lastRetry)
		}
	}()
}

// run reconciles after changes of the links or the uplink that matter here, and
// after failures with back-off.
func (m *Manager) run() {
	defer m.wg.Done()
	delay, retry := firstRetry, time.NewTimer(0)
	defer retry.Stop()
	var w *rtnl.Watcher
	defer func() {
		if w != nil {
			w.Wait()
		}
	}()
	again := false
	for {
		// The channel first: what changes while this reconciles is seen next.
		changed, err := m.watch(&w)
		if err == nil {
			err = m.step(again)
		}
		retry.Stop()
		if err != nil {
			retry.Reset(delay)
			delay = min(2*delay, lastRetry)
		} else {
			delay = firstRetry
		}
		again = false
		select {
		case <-m.ctx.Done():
			return
		case <-changed:
		case <-m.kick:
		case <-retry.C:
			again = true
		}
	}
}

// step reconciles if the uplink has changed, the links are not as they should be,
// or that failed before. Most news is neither: each TAP device of a VM that
// starts makes several, and each lease that is renewed.
func (m *Manager) step(again bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.learnUplink() && !again {
		if links, err := rtnl.Links(); err == nil && !m.drifted(links) {
			return nil
		}
	}
	return m.reconcile()
}

// watch returns a channel that tells of the next change of the links; it makes
// the watcher if there is none or the old one has failed.
func (m *Manager) watch(w **rtnl.Watcher) (<-chan struct{}, error) {
	if *w != nil {
		if _, changed, err := (*w).Links(); err == nil {
			return changed, nil
		}
	}
	fresh, err := rtnl.Watch(m.ctx)
	if err != nil {
		m.log.Error("links not watched", "err", qverr.New(qverr.NetBridge, "%w", err))
		return nil, err
	}
	*w = fresh
	_, changed, err := fresh.Links()
	return changed, err
}

// notify calls OnChange, always with the newest status.
func (m *Manager) notify() {
	defer m.wg.Done()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.news:
			if m.opts.OnChange != nil {
				m.opts.OnChange(m.Status())
			}
		}
	}
}

// wake leaves a mark in a channel of capacity one.
func (m *Manager) wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Settled waits until the uplink has its address or its failure is known (no
// interface or carrier within 5 s, no answer to four requests within 8 s), and
// returns its status. The error is ctx's.
func (m *Manager) Settled(ctx context.Context) (UplinkStatus, error) {
	m.mu.Lock()
	up := m.up
	m.mu.Unlock()
	if up == nil {
		return UplinkStatus{}, qverr.New(qverr.State, "the network has no wanted state yet")
	}
	select {
	case <-up.Settled():
		return up.Status(), nil
	case <-ctx.Done():
		return up.Status(), ctx.Err()
	}
}

// Leases returns the unexpired leases of a network, ordered by address.
// QV_ERR_NOENT if there is no such network.
func (m *Manager) Leases(network string) ([]Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(network)
	if err != nil {
		return nil, err
	}
	if n.server == nil {
		return nil, nil
	}
	return n.server.Leases(), nil
}

// Uplink is Status for the uplink alone, at once: also while networks are being
// changed.
func (m *Manager) Uplink() UplinkStatus {
	if up := m.shown.Load(); up != nil {
		return up.Status()
	}
	return UplinkStatus{}
}

// Inform is uplink.Inform on the uplink of the moment.
func (m *Manager) Inform(ctx context.Context, options []dhcpv4.Option, match func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	up := m.shown.Load()
	if up == nil {
		return nil, qverr.New(qverr.State, "the network has no wanted state yet")
	}
	return up.Inform(ctx, options, match)
}

// Status is what the node's network really is.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var st Status
	if m.up != nil {
		st.Uplink = m.up.Status()
	}
	ports, err := ports()
	for _, want := range m.state.Networks {
		ns := NetworkStatus{Network: want, Ports: []PortInfo{}}
		if n := m.nets[want.ID]; n != nil {
			ns.Problem = n.problem
			ns.Ready = n.problem == nil
		}
		if err != nil && ns.Problem == nil {
			ns.Problem = qverr.From(err)
		}
		for _, p := range ports {
			if p.Network == want.ID {
				ns.Ports = append(ns.Ports, PortInfo{ID: p.PortID, MAC: p.MAC, TAP: p.tap, Attached: p.master == want.Bridge})
			}
		}
		slices.SortFunc(ns.Ports, func(a, b PortInfo) int { return slices.Compare([]byte(a.TAP), []byte(b.TAP)) })
		st.Networks = append(st.Networks, ns)
	}
	return st
}

// Close ends all goroutines and leaves the kernel's state alone, so that a new
// manager can adopt it.
func (m *Manager) Close() error {
	m.cancel()
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up != nil {
		<-m.up.done
	}
	for _, n := range m.nets {
		n.stop()
	}
	return nil
}

// find looks a network up by its name; mu is held.
func (m *Manager) find(name string) (*network, error) {
	for _, want := range m.state.Networks {
		if want.Name == name && m.nets[want.ID] != nil {
			return m.nets[want.ID], nil
		}
	}
	return nil, qverr.New(qverr.NoEnt, "there is no network %q", name)
}

// pause waits; false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
