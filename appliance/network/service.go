package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
)

// Stack is what the service needs of netstack.Manager.
type Stack interface {
	Connect(uplink netstack.UplinkConfig) error
	Apply(ctx context.Context, state netstack.State) error
	Settled(ctx context.Context) (netstack.UplinkStatus, error)
	AddPort(ctx context.Context, network string, p netstack.Port) (queues []*os.File, name string, err error)
	RemovePort(ctx context.Context, network, portID string) error
	Uplink() netstack.UplinkStatus
	Inform(ctx context.Context, options []dhcpv4.Option, match func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error)
	Leases(network string) ([]netstack.Lease, error)
	Status() netstack.Status
	Close() error
}

// Options of New.
type Options struct {
	Log        *slog.Logger
	Off        bool   // leave the kernel's network alone
	RunDir     string // keeps the uplink's lease over a restart of the daemon
	ResolvConf string // gets the uplink's name servers, "" for none
	Hostname   string
	DataDir    string // has UplinkFile; "": a configuration over the API is lost with the process
	BootCard   netstack.MAC
	BootFile   func(name string) (*os.File, error) // opens an image that guests boot
}

// Service is the network of the node.
type Service struct {
	log    *slog.Logger
	stack  Stack // nil when off
	leases *leases

	control control

	mu       sync.Mutex
	want     netstack.State // without the options of the kernel command line
	problem  error          // of the last Apply
	watchers []func()
	vmOf     func(mac string) string
}

// New makes the service; Connect and Start touch the kernel.
func New(opts Options) *Service {
	s := &Service{log: opts.Log, leases: &leases{}, vmOf: func(string) string { return "" }}
	s.want.Networks = []netstack.Network{netstack.DefaultNetwork()}
	s.control.clock = bootClock()
	if opts.DataDir != "" {
		s.control.path = filepath.Join(opts.DataDir, UplinkFile)
	}
	if !opts.Off { // a nil *Manager in the interface would not be nil
		s.stack = netstack.New(netstack.Options{
			Logger:     opts.Log,
			Leases:     s.leases,
			ResolvConf: opts.ResolvConf,
			RunDir:     opts.RunDir,
			Hostname:   opts.Hostname,
			BootCard:   opts.BootCard,
			BootFile:   opts.BootFile,
			OnChange:   func(netstack.Status) { s.changed() },
		})
	}
	return s
}

// OnChange adds a function that is called when addresses or states change; it
// must not block.
func (s *Service) OnChange(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, fn)
}

// NameVMs tells which VM has a MAC, for the list of leases.
func (s *Service) NameVMs(vmOf func(mac string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vmOf = vmOf
}

func (s *Service) changed() {
	s.mu.Lock()
	watchers := s.watchers
	s.mu.Unlock()
	for _, fn := range watchers {
		fn()
	}
}

// Connect begins with the uplink, which needs nobody's state. options are those
// of the kernel command line. Start goes on from there and tells how it went.
func (s *Service) Connect(options map[string]string) {
	if s.stack == nil {
		return
	}
	cfg, _ := s.openUplink(options, false) // Start says what is wrong
	if err := s.stack.Connect(cfg); err != nil {
		s.log.Error("connect the uplink", "err", err) // as will be Start's
	}
}

// Start brings up the networks, whose leases are kept in db, and the uplink, and
// returns when the uplink has its address or it is known that it gets none.
// options are those of the kernel command line, which override what Configure
// said. It may be called again.
func (s *Service) Start(ctx context.Context, db *store.DB, options map[string]string) error {
	if s.stack == nil {
		return nil
	}
	if s.leases.db == nil {
		s.leases.db = db
	}
	cfg, wrong := s.openUplink(options, true)
	err := s.stack.Apply(ctx, s.wanted(cfg))
	if err != nil {
		s.log.Error("bring up the network", "err", err)
	}
	if wrong != nil {
		s.log.Error("the uplink is not as configured", "err", wrong)
		err = wrong
	}
	s.mu.Lock()
	s.problem = err
	s.mu.Unlock()
	up, settleErr := s.stack.Settled(ctx)
	if settleErr != nil {
		return settleErr
	}
	if up.Problem != nil {
		s.log.Warn("the uplink has no address", "err", up.Problem)
	}
	s.changed()
	return err
}

// Close leaves the kernel's network as it is, for the next daemon.
func (s *Service) Close() error {
	if s.stack == nil {
		return nil
	}
	s.closeUplink()
	return s.stack.Close()
}

func errOff() error {
	return qverr.New(qverr.NetBridge, "the daemon was started with --no-network")
}

func problemOf(err error) spec.Problem {
	if p := initapi.NewProblem(err); p != nil {
		return *p
	}
	return initapi.Problem{}
}

// Uplink is the node's own connection.
func (s *Service) Uplink() spec.UplinkInfo {
	if s.stack == nil {
		return LocalUplink()
	}
	info := ShowUplink(s.stack.Uplink())
	if info.Problem.Code == 0 {
		s.mu.Lock()
		info.Problem = problemOf(s.problem)
		s.mu.Unlock()
	}
	return info
}

// LocalUplink is what there is to say where the network is left alone.
func LocalUplink() spec.UplinkInfo {
	return spec.UplinkInfo{State: spec.UplinkInfoStateOff, Addresses: localAddresses()}
}

// ShowUplink is a status as the API has it.
func ShowUplink(u netstack.UplinkStatus) spec.UplinkInfo {
	info := spec.UplinkInfo{State: spec.UplinkInfoState(u.State), Mode: spec.UplinkInfoMode(u.Mode), Interface: u.Interface, Addresses: []string{}}
	if info.State == "" {
		info.State = spec.UplinkInfoStateDown
	}
	if !u.MAC.IsZero() {
		info.MAC = u.MAC.String()
	}
	if u.Address.IsValid() {
		info.Addresses = append(info.Addresses, u.Address.String())
	}
	if u.Gateway.IsValid() {
		info.Gateway = u.Gateway.String()
	}
	for _, d := range u.DNS {
		info.DNS = append(info.DNS, d.String())
	}
	if u.Problem != nil {
		info.Problem = problemOf(u.Problem)
	}
	return info
}

// Address is the address under which others reach the node, if it has one.
func (s *Service) Address() (netip.Addr, bool) {
	for _, a := range s.Uplink().Addresses {
		if p, err := netip.ParsePrefix(a); err == nil {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// List shows all networks.
func (s *Service) List() []spec.Network {
	if s.stack == nil {
		return []spec.Network{show(netstack.NetworkStatus{Network: netstack.DefaultNetwork()}, errOff())}
	}
	out := []spec.Network{}
	for _, n := range s.stack.Status().Networks {
		var err error
		if n.Problem != nil {
			err = n.Problem
		}
		out = append(out, show(n, err))
	}
	return out
}

func show(n netstack.NetworkStatus, err error) spec.Network {
	out := spec.Network{
		Name:    n.Name,
		ID:      n.ID,
		Bridge:  n.Bridge,
		Subnet:  n.Subnet.Masked().String(),
		Gateway: n.Subnet.Addr().String(),
		DHCP:    n.DHCP,
		NAT:     n.NAT,
		MTU:     n.MTU,
		Ready:   n.Ready,
		Problem: problemOf(err),
	}
	if b := n.Boot; b != nil {
		out.BootFile, out.BootImages = b.File, b.Files
		if b.Server.IsValid() {
			out.BootServer = b.Server.String()
		}
	}
	return out
}

// Get finds one network; QV_ERR_NOENT when there is none.
func (s *Service) Get(name string) (spec.Network, error) {
	for _, n := range s.List() {
		if n.Name == name {
			return n, nil
		}
	}
	return spec.Network{}, qverr.New(qverr.NoEnt, "there is no network %.64q", name)
}

// Leases lists the addresses that guests of a network have.
func (s *Service) Leases(name string) ([]spec.Lease, error) {
	if _, err := s.Get(name); err != nil || s.stack == nil {
		return []spec.Lease{}, err
	}
	leases, err := s.stack.Leases(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	vmOf := s.vmOf
	s.mu.Unlock()
	out := make([]spec.Lease, 0, len(leases))
	for _, l := range leases {
		out = append(out, spec.Lease{
			MAC: l.MAC.String(), Address: l.Address.String(), Hostname: l.Hostname,
			ExpiresAt: l.Expires.UTC(), Fixed: l.Fixed, VM: vmOf(l.MAC.String()),
		})
	}
	return out, nil
}

// AddressesOf lists the unexpired addresses of a MAC on a network.
func (s *Service) AddressesOf(network, mac string) []string {
	if s.stack == nil {
		return nil
	}
	leases, err := s.stack.Leases(network)
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range leases {
		if l.MAC.String() == mac && l.Active(time.Now()) {
			out = append(out, l.Address.String())
		}
	}
	return out
}

// AddPort makes a TAP device on a network; see netstack.Manager.AddPort.
func (s *Service) AddPort(ctx context.Context, network string, p netstack.Port) ([]*os.File, string, error) {
	if s.stack == nil {
		return nil, "", errOff()
	}
	return s.stack.AddPort(ctx, network, p)
}

// RemovePort takes away what a dead VM may have left.
func (s *Service) RemovePort(ctx context.Context, network, id string) error {
	if s.stack == nil {
		return nil
	}
	return s.stack.RemovePort(ctx, network, id)
}
