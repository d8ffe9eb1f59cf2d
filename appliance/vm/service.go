package vm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/hostpci"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/hv/config"
	"quantavirt/hv/limit"
	"quantavirt/hv/vmm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
	"quantavirt/netstack"
	"quantavirt/pqc/attest"
)

// maxVMs bounds the definitions of a node.
const maxVMs = 1024

// VMM starts and finds VM processes.
type VMM interface {
	Spawn(ctx context.Context, s vmm.Spec) (Process, error)
	Adopt(ctx context.Context, s vmm.AdoptSpec) (Process, vmm.Info, error)
	// Cleanup ends what is left of a VM that does not answer, and removes it.
	Cleanup(ctx context.Context, runDir, name, cgroup string) error
}

// Process is a running VM process.
type Process interface {
	PID() int
	Control() Control
	Wait(ctx context.Context) (vmm.ExitReport, error)
	// ServeVsock makes connections for the guest; QV_ERR_NOENT for one that needs none.
	ServeVsock(ctx context.Context) error
	Kill() error
	// Host is what the node's kernel knows of it.
	Host() (vmm.HostStats, error)
}

// Control drives a VM process.
type Control interface {
	Info(ctx context.Context) (vmm.Info, error)
	Stats(ctx context.Context) (vmm.Stats, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Reset(ctx context.Context) error
	PowerButton(ctx context.Context) error
	Quit(ctx context.Context) error
	SetBalloon(ctx context.Context, target int64) error
	SetDiskLimits(ctx context.Context, id string, l limit.Limits) error
	SetNICLimits(ctx context.Context, id string, l limit.Limits) error
	Console(ctx context.Context, name string) (io.ReadWriteCloser, error)
}

// Storage opens what VMs boot from and write to.
type Storage interface {
	ImageKind(id string) (spec.ImageKind, error)
	HasDisk(name string) error
	CheckPath(path string) (string, error)
	OpenImage(id string, kind spec.ImageKind) (*os.File, error)
	// OpenUnpacked is nil for a kernel without an unpacked form.
	OpenUnpacked(id string) (*os.File, error)
	OpenDisk(name string, readonly bool) (*os.File, error)
	OpenPath(path string, readonly bool) (*os.File, error)
	// Origin is the SHA-256 of what was uploaded as a disk, "" if nothing was.
	Origin(disk string) (string, error)
}

// Network gives VMs their ports.
type Network interface {
	Get(name string) (spec.Network, error)
	AddPort(ctx context.Context, network string, p netstack.Port) ([]*os.File, string, error)
	RemovePort(ctx context.Context, network, id string) error
	AddressesOf(network, mac string) []string
}

// Functions gives VMs PCI functions of the node; see hostpci.Service.
type Functions interface {
	Reserve(ctx context.Context, vm string, addresses []string, card bool) ([]hostpci.Lent, error)
	Take(ctx context.Context, vm string, lent []hostpci.Lent) (*vfio.Assignment, error)
	Adopted(vm string, lent []hostpci.Lent)
	Return(vm string, lent []hostpci.Lent)
}

// Deps is what the service stands on.
type Deps struct {
	Log     *slog.Logger
	DB      *store.DB
	Bus     *event.Bus
	Tasks   *task.Manager
	Schema  func() (*schema.Set, error)
	Storage Storage
	Network Network
	PCI     Functions
	VMM     VMM
	// KVM is nil when guests can run, else says why not.
	KVM func(ctx context.Context) error
	// Exit asks PID 1 how a process ended; nil without PID 1.
	Exit func(ctx context.Context, pid int) (initapi.Exit, error)
	// Memory is the node's memory, in bytes.
	Memory func() (total, available int64)

	DataDir string
	RunDir  string
	Binary  string // of hv
	// Firmware is the directory of SeaBIOS and the option ROM.
	Firmware string
	Cgroup   string // below which each VM has its cgroup; "" for none
	NoJail   bool   // for tests without root
}

// Service is all virtual machines of the node.
type Service struct {
	Deps
	ctx  context.Context // ends when the service leaves its VMs alone
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	vms     map[string]*machine
	bootID  string
	known   bool // Adopt is through
	adopted int
	closing bool
}

// record is a VM as it is stored.
type record struct {
	Config    spec.VMConfig   `json:"config"`
	State     spec.VMState    `json:"state"`
	Since     time.Time       `json:"since"`
	Reason    string          `json:"reason,omitempty"`
	Error     initapi.Problem `json:"error,omitzero"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
	StartedAt *time.Time      `json:"started_at,omitempty"`
	CrashedAt *time.Time      `json:"crashed_at,omitempty"` // when the crash report is from
	CID       uint32          `json:"cid"`
	Restarts  int             `json:"restarts"`
	// Starting is set while there may be a process that State does not tell of.
	Starting bool   `json:"starting,omitempty"`
	BootID   string `json:"boot_id,omitempty"` // of the node when the process was started
	PID      int    `json:"pid,omitempty"`
	// Generation is the VM generation id: it keeps over restarts, and changes when the
	// VM is taken back to an earlier state or cloned.
	Generation string `json:"generation,omitempty"`
	// Lent are the PCI functions of the node that the VM has while it has a process.
	Lent []hostpci.Lent `json:"lent,omitempty"`
	// Measured is set while a VM with attestation has a process.
	Measured *attest.Started `json:"measured,omitempty"`
}

// machine is a VM in memory; the service's lock guards it.
type machine struct {
	rec   record
	run   *run       // nil without a process
	op    *operation // what is at work on it
	limit int64      // memory that its process may use, 0 without one
}

// run is one life of a VM process.
type run struct {
	proc Process
	done chan struct{} // closed when the end is recorded
	// asked is set when an operator wants the end: no restart follows.
	asked bool
}

// operation is an action that is under way.
type operation struct {
	action Action
	task   string
	cancel context.CancelFunc
	done   chan struct{}
}

// Open reads the stored VMs. Adopt must follow before anything is started.
func Open(deps Deps) (*Service, error) {
	ctx, stop := context.WithCancel(context.Background())
	s := &Service{Deps: deps, ctx: ctx, stop: stop, vms: make(map[string]*machine)}
	records, err := store.All[record](deps.DB, store.VMs)
	if err != nil {
		stop()
		return nil, err
	}
	for _, r := range records {
		setDefault(&r.Config.Machine, config.FirstMachineType)
		setDefault(&r.Generation, uuid.NewString()) // stored with the next start
		s.vms[r.Config.Name] = &machine{rec: r}
	}
	return s, nil
}

// Close leaves the VMs running and ends the service's own goroutines.
func (s *Service) Close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
}

func now() time.Time { return time.Now().UTC() }

// find needs the lock.
func (s *Service) find(name string) (*machine, error) {
	if m, ok := s.vms[name]; ok {
		return m, nil
	}
	return nil, qverr.New(qverr.NoEnt, "there is no VM %.64q", name)
}

// claim finds a VM on which a may begin now; it needs the lock.
func (s *Service) claim(name string, a Action) (*machine, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if !s.known {
		return nil, qverr.New(qverr.Again, "the daemon is still looking for VMs that run")
	}
	return m, m.free(a)
}

// save stores the record of m; it needs the lock.
func (s *Service) save(m *machine) error { return s.DB.Put(store.VMs, m.rec.Config.Name, m.rec) }

// enter puts m into a state; it needs the lock.
func (s *Service) enter(m *machine, state spec.VMState, reason string, problem initapi.Problem) {
	changed := m.rec.State != state
	m.rec.Reason, m.rec.Error = reason, problem
	if changed {
		m.rec.State, m.rec.Since = state, now()
	}
	if err := s.save(m); err != nil {
		s.Log.Error("store the state of VM "+m.rec.Config.Name, "err", err)
	}
	if changed {
		s.Bus.Publish(event.Event{Kind: "vm.state", Object: target(m.rec.Config.Name), Data: state})
		text := "VM " + m.rec.Config.Name + " is " + string(state)
		if reason != "" {
			text += ": " + reason
		}
		s.Log.Info(text)
	}
}

func target(name string) string { return "vms/" + name }

// List shows all VMs by name.
func (s *Service) List() []spec.VM {
	s.mu.Lock()
	out := make([]spec.VM, 0, len(s.vms))
	for _, m := range s.vms {
		out = append(out, s.show(m))
	}
	s.mu.Unlock()
	for i := range out {
		s.addAddresses(&out[i])
	}
	slices.SortFunc(out, func(a, b spec.VM) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Get shows one VM; QV_ERR_NOENT when there is none.
func (s *Service) Get(name string) (spec.VM, error) {
	s.mu.Lock()
	m, err := s.find(name)
	if err != nil {
		s.mu.Unlock()
		return spec.VM{}, err
	}
	out := s.show(m)
	s.mu.Unlock()
	s.addAddresses(&out)
	return out, nil
}

// show needs the lock.
func (s *Service) show(m *machine) spec.VM {
	r := &m.rec
	out := spec.VM{
		Name: r.Config.Name, UUID: r.Config.UUID, State: r.State, StateSince: r.Since, Reason: r.Reason, Error: r.Error,
		Config: r.Config, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, StartedAt: r.StartedAt, CID: r.CID, Restarts: r.Restarts,
		CrashedAt: r.CrashedAt,
	}
	if m.run != nil {
		out.Pid = m.run.proc.PID()
	}
	if m.op != nil {
		out.Task = m.op.task
	}
	for i, n := range r.Config.Network {
		nic := spec.VMNIC{Network: n.Network, MAC: macOf(&r.Config, i)}
		if m.run != nil {
			nic.Tap = tapOf(&r.Config, i)
		}
		out.Nics = append(out.Nics, nic)
	}
	return out
}

func (s *Service) addAddresses(v *spec.VM) {
	for i := range v.Nics {
		v.Nics[i].Addresses = s.Network.AddressesOf(v.Nics[i].Network, v.Nics[i].MAC)
	}
}

// Counts is how many VMs there are and how many have a process.
func (s *Service) Counts() spec.VMCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := spec.VMCounts{Total: len(s.vms)}
	for _, m := range s.vms {
		if hasProcess(m.rec.State) {
			c.Running++
		}
	}
	return c
}

// Adopted is how many running VMs this daemon found when it started.
func (s *Service) Adopted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.adopted
}

// VMOf names the VM with a MAC, "" for none.
func (s *Service) VMOf(mac string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.vms {
		for i := range m.rec.Config.Network {
			if macOf(&m.rec.Config, i) == mac {
				return name
			}
		}
	}
	return ""
}

// UsersOf names the VMs whose configuration has an image or a disk, and those
// of them that have a process.
func (s *Service) UsersOf(uses func(*spec.VMConfig) bool) (all, running []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.vms {
		if !uses(&m.rec.Config) {
			continue
		}
		all = append(all, name)
		if hasProcess(m.rec.State) {
			running = append(running, name)
		}
	}
	slices.Sort(all)
	slices.Sort(running)
	return all, running
}

// problemOf is err as it is stored and shown.
func problemOf(err error) initapi.Problem {
	if p := initapi.NewProblem(err); p != nil {
		return *p
	}
	return initapi.Problem{}
}

func closeAll(files map[string]*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
