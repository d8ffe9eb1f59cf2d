package system

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/hv/kvm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// Init is PID 1 as the daemon uses it.
type Init interface {
	// Boot is what PID 1 found; with wait it answers when all boot steps have ended.
	Boot(ctx context.Context, wait bool) (initapi.Boot, error)
	// BootStep is the same once the named step has ended.
	BootStep(ctx context.Context, step string) (initapi.Boot, error)
	Reboot(ctx context.Context) error
	PowerOff(ctx context.Context) error
}

// VMs is what the service shows of the virtual machines.
type VMs interface {
	Counts() spec.VMCounts
	Adopted() int
	// Committed is the memory that running VMs may use, Admissible what others
	// may still take, in bytes.
	Committed() int64
	Admissible() int64
}

// Cards is what the service shows of the cryptography.
type Cards interface {
	Overview(ctx context.Context) []spec.Card
	Provider(ctx context.Context) string
}

// Deps is what the service shows.
type Deps struct {
	Log     *slog.Logger
	Init    Init         // nil on a machine without our PID 1
	Boot    initapi.Boot // of Started
	DataDir string
	VMs     VMs
	Cards   Cards
	Uplink  func() spec.UplinkInfo
	// Trust is what is known of the boot.
	Trust func(ctx context.Context) spec.Trust
	TLS   func() spec.TLSInfo
	// Name is the host name in the node's configuration, "" for none.
	Name func() string
	// Configuration is what the node got at its first boot.
	Configuration func() spec.ConfigurationInfo
	// CPU is what the node's CPU and KVM offer to guests; nil where it cannot be known.
	CPU func() ([]kvm.CPUIDEntry, error)
	// Restart ends the daemon, for PID 1 to start it again.
	Restart func()
}

// Service is the node.
type Service struct {
	Deps
	nodeID  string
	started time.Time
	clock   *Clock

	mu       sync.Mutex
	boot     initapi.Boot
	notReady error
}

const nodeKey = "node"

type node struct {
	ID string `json:"id"`
}

// First gives the node its id, at its first boot.
func First(tx *store.Tx) error { return tx.Put(store.Settings, nodeKey, node{ID: uuid.NewString()}) }

// New makes the service.
func New(db *store.DB, deps Deps) (*Service, error) {
	var n node
	err := db.Get(store.Settings, nodeKey, &n)
	if qverr.CodeOf(err) == qverr.NoEnt { // the file is older than First
		if err = db.Update(First); err == nil {
			err = db.Get(store.Settings, nodeKey, &n)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Service{
		Deps:     deps,
		nodeID:   n.ID,
		boot:     deps.Boot,
		started:  time.Now().UTC(),
		clock:    newClock(deps.Log),
		notReady: qverr.New(qverr.Again, "the daemon is starting"),
	}, nil
}

// Started waits until PID 1 has mounted the data volume, and returns what it found
// so far; without a PID 1 of ours it looks itself.
func Started(ctx context.Context, init Init, dataDir string) (initapi.Boot, error) {
	if init == nil {
		return localBoot(dataDir), nil
	}
	return init.BootStep(ctx, "data-volume")
}

// LoadBoot asks PID 1 what it found, or looks itself where there is no PID 1
// of ours.
func (s *Service) LoadBoot(ctx context.Context, wait bool) (initapi.Boot, error) {
	boot := localBoot(s.DataDir)
	var err error
	if s.Init != nil {
		boot, err = s.Init.Boot(ctx, wait)
	}
	if err != nil {
		return initapi.Boot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot = boot
	return boot, nil
}

// Boot is what LoadBoot found last.
func (s *Service) Boot() initapi.Boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boot
}

// SetReady says that the daemon has started, or with an error why it cannot
// serve.
func (s *Service) SetReady(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notReady = err
}

// Ready is nil when the daemon serves everything it can.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notReady
}

// SyncClock sets the clock by SNTP, again and again, until ctx ends.
func (s *Service) SyncClock(ctx context.Context, servers []string) { s.clock.run(ctx, servers) }

// Reboot asks PID 1 to stop everything and reboot.
func (s *Service) Reboot(ctx context.Context) error {
	if s.Init == nil {
		return noInit("reboot")
	}
	return s.Init.Reboot(ctx)
}

// PowerOff asks PID 1 to stop everything and power off.
func (s *Service) PowerOff(ctx context.Context) error {
	if s.Init == nil {
		return noInit("power off")
	}
	return s.Init.PowerOff(ctx)
}

// RestartDaemon ends the daemon, for PID 1 to start it again. VMs run on.
func (s *Service) RestartDaemon() error {
	if s.Init == nil {
		return noInit("restart the daemon")
	}
	s.Restart()
	return nil
}

func noInit(what string) error {
	return qverr.New(qverr.Unsupported, "%s: this daemon runs without QuantaVirt's PID 1", what)
}

// ID is the node's own, made at its first boot.
func (s *Service) ID() string { return s.nodeID }

// Hostname is the node's name: that of the command line, of the configuration,
// or what PID 1 has made up.
func (s *Service) Hostname() string {
	boot := s.Boot()
	if name := s.Name(); name != "" && boot.Options["hostname"] == "" {
		return name
	}
	if boot.Hostname != "" {
		return boot.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return "quantavirt"
	}
	return name
}

// Names are the host names and addresses under which the API is reached.
func (s *Service) Names() ([]string, []netip.Addr) {
	var addrs []netip.Addr
	for _, a := range s.Uplink().Addresses {
		if p, err := netip.ParsePrefix(a); err == nil {
			addrs = append(addrs, p.Addr())
		} else if ip, err := netip.ParseAddr(a); err == nil {
			addrs = append(addrs, ip)
		}
	}
	return []string{s.Hostname()}, addrs
}
