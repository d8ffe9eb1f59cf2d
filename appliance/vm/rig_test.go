package vm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/hv/limit"
	"quantavirt/hv/vmm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
)

// fakeVMM stands in for hv/vmm: processes that do what a test says. It lives
// longer than a service, as VM processes do.
type fakeVMM struct {
	mu      sync.Mutex
	procs   map[string]*fakeProc
	fail    error // of the next Spawn
	specs   []vmm.Spec
	spawned func(vmm.Spec) // sees what a process gets
	deaf    bool           // guests do not react to the power button
	nextPID int
	crash   *vmm.CrashReport // what the next process to end leaves
}

type fakeProc struct {
	v      *fakeVMM
	name   string
	pid    int
	mu     sync.Mutex
	state  vmm.State
	report vmm.ExitReport
	done   chan struct{}
	target int64 // of the balloon
	limits map[string]limit.Limits
	driver bool // the guest has one for the balloon
}

func (v *fakeVMM) Spawn(_ context.Context, s vmm.Spec) (Process, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.fail; err != nil {
		v.fail = nil
		return nil, err
	}
	if v.spawned != nil {
		v.spawned(s)
	}
	v.specs = append(v.specs, s)
	v.nextPID++
	p := &fakeProc{v: v, name: s.Name, pid: 1000 + v.nextPID, state: vmm.StateRunning, done: make(chan struct{})}
	v.procs[s.Name] = p
	return p, nil
}

func (v *fakeVMM) Adopt(_ context.Context, s vmm.AdoptSpec) (Process, vmm.Info, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.procs[s.Name]
	if p == nil {
		return nil, vmm.Info{}, qverr.New(qverr.NoEnt, "VM %s does not run", s.Name)
	}
	return p, vmm.Info{Name: s.Name, State: p.state}, nil
}

func (v *fakeVMM) Cleanup(context.Context, string, string, string) error { return nil }

func (v *fakeVMM) proc(t *testing.T, name string) *fakeProc {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.procs[name]
	if p == nil {
		t.Fatalf("no process for %s", name)
	}
	return p
}

// end is the end of the process.
func (p *fakeProc) end(status, signal int) {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	if p.v.procs[p.name] != p {
		return
	}
	delete(p.v.procs, p.name)
	p.report = vmm.Report(status, signal, vmm.ExitReport{Crash: p.v.crash})
	p.v.crash = nil
	close(p.done)
}

func (p *fakeProc) PID() int         { return p.pid }
func (p *fakeProc) Control() Control { return p }
func (p *fakeProc) Host() (vmm.HostStats, error) {
	return vmm.HostStats{Threads: 4, PSS: 9 << 20, GuestPSS: 5 << 20, Steal: []int64{11}}, nil
}
func (p *fakeProc) Kill() error { p.end(-1, 9); return nil }
func (p *fakeProc) ServeVsock(context.Context) error {
	return qverr.New(qverr.NoEnt, "it needs no sockets")
}
func (p *fakeProc) Wait(ctx context.Context) (vmm.ExitReport, error) {
	select {
	case <-p.done:
		return p.report, nil
	case <-ctx.Done():
		return vmm.ExitReport{}, ctx.Err()
	}
}

func (p *fakeProc) set(s vmm.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	return nil
}
func (p *fakeProc) Info(context.Context) (vmm.Info, error)   { return vmm.Info{State: p.state}, nil }
func (p *fakeProc) Stats(context.Context) (vmm.Stats, error) { return vmm.Stats{UptimeSeconds: 5}, nil }
func (p *fakeProc) Pause(context.Context) error              { return p.set(vmm.StatePaused) }
func (p *fakeProc) Resume(context.Context) error             { return p.set(vmm.StateRunning) }
func (p *fakeProc) Reset(context.Context) error              { return nil }
func (p *fakeProc) PowerButton(context.Context) error {
	if !p.v.deaf {
		p.end(vmm.ExitGuestOff, 0)
	}
	return nil
}
func (p *fakeProc) SetBalloon(_ context.Context, target int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.driver {
		return qverr.New(qverr.Balloon, "no driver")
	}
	p.target = target
	return nil
}
func (p *fakeProc) SetDiskLimits(ctx context.Context, id string, l limit.Limits) error {
	return p.SetNICLimits(ctx, id, l)
}
func (p *fakeProc) SetNICLimits(_ context.Context, id string, l limit.Limits) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limits == nil {
		p.limits = make(map[string]limit.Limits)
	}
	p.limits[id] = l
	return nil
}
func (p *fakeProc) Quit(context.Context) error { p.end(vmm.ExitQuit, 0); return nil }
func (p *fakeProc) Console(context.Context, string) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(theirs, theirs) }()
	return ours, nil
}

// fakeStorage has every image and disk but "none", empty if no file of the folder has
// that name; disks lock each other out.
type fakeStorage struct {
	dir      string
	unpacked bool // kernels have an unpacked form
	mu       sync.Mutex
	locked   map[string]bool
}

func (s *fakeStorage) open(name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(s.dir, filepath.Base(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return os.Open(os.DevNull)
	}
	return f, err
}

func (s *fakeStorage) ImageKind(id string) (spec.ImageKind, error) {
	if id == "none" {
		return "", qverr.New(qverr.NoEnt, "there is no image none")
	}
	if strings.HasPrefix(id, "initrd") {
		return spec.ImageKindInitrd, nil
	}
	return spec.ImageKindKernel, nil
}
func (s *fakeStorage) HasDisk(name string) error {
	if name == "none" {
		return qverr.New(qverr.NoEnt, "there is no disk none")
	}
	return nil
}
func (s *fakeStorage) CheckPath(path string) (string, error) { return path, nil }
func (s *fakeStorage) Origin(disk string) (string, error)    { return "origin of " + disk, nil }
func (s *fakeStorage) OpenUnpacked(string) (*os.File, error) {
	if !s.unpacked {
		return nil, nil
	}
	return os.Open(os.DevNull)
}

func (s *fakeStorage) OpenImage(id string, _ spec.ImageKind) (*os.File, error) { return s.open(id) }
func (s *fakeStorage) OpenDisk(name string, _ bool) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked[name] {
		return nil, qverr.New(qverr.StrLock, "disk file is locked")
	}
	return s.open(name)
}
func (s *fakeStorage) OpenPath(path string, ro bool) (*os.File, error) { return s.OpenDisk(path, ro) }

// fakeNetwork has the network default.
type fakeNetwork struct {
	mu      sync.Mutex
	ports   map[string]bool
	removed []string
}

func (n *fakeNetwork) Get(name string) (spec.Network, error) {
	if name != "default" {
		return spec.Network{}, qverr.New(qverr.NoEnt, "there is no network %s", name)
	}
	return spec.Network{Name: name, MTU: 1500}, nil
}
func (n *fakeNetwork) AddPort(_ context.Context, _ string, p netstack.Port) ([]*os.File, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[p.ID] = true
	var queues []*os.File
	for range max(p.Queues, 1) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return nil, "", err
		}
		queues = append(queues, f)
	}
	return queues, netstack.TAPName(p.ID), nil
}
func (n *fakeNetwork) RemovePort(_ context.Context, _, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ports, id)
	n.removed = append(n.removed, id)
	return nil
}
func (n *fakeNetwork) AddressesOf(string, string) []string { return nil }

// rig is a service with everything around it; reopen is a new daemon.
type rig struct {
	*Service
	t     *testing.T
	dir   string
	vmm   *fakeVMM
	store *fakeStorage
	net   *fakeNetwork
	pci   *fakeFunctions
	db    *store.DB
	tasks *task.Manager
	exit  func(ctx context.Context, pid int) (initapi.Exit, error)
	free  int64
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), vmm: &fakeVMM{procs: map[string]*fakeProc{}}, net: &fakeNetwork{ports: map[string]bool{}}, pci: &fakeFunctions{}, free: 4 << 30}
	r.store = &fakeStorage{dir: r.dir, locked: map[string]bool{}}
	r.open("boot-1")
	t.Cleanup(r.close)
	return r
}

func (r *rig) open(bootID string) {
	r.t.Helper()
	var err error
	if r.db, err = store.Open(filepath.Join(r.dir, "state.db")); err != nil {
		r.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	bus := &event.Bus{}
	if r.tasks, err = task.NewManager(r.db, bus, log); err != nil {
		r.t.Fatal(err)
	}
	set := testSet(r.t)
	r.Service, err = Open(Deps{
		Log: log, DB: r.db, Bus: bus, Tasks: r.tasks, Schema: func() (*schema.Set, error) { return set, nil },
		Storage: r.store, Network: r.net, PCI: r.pci, VMM: r.vmm, KVM: func(context.Context) error { return nil },
		Exit:    func(ctx context.Context, pid int) (initapi.Exit, error) { return r.exit(ctx, pid) },
		Memory:  func() (int64, int64) { return 8 << 30, r.free },
		DataDir: r.dir, RunDir: filepath.Join(r.dir, "run"), Binary: "hv", Firmware: filepath.Join(r.dir, "firmware"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.exit == nil {
		r.exit = func(context.Context, int) (initapi.Exit, error) {
			return initapi.Exit{}, qverr.New(qverr.NoEnt, "not known")
		}
	}
	r.Adopt(r.t.Context(), bootID)
}

func (r *rig) close() {
	r.Service.Close()
	r.tasks.Close(context.Background())
	_ = r.db.Close()
}

func (r *rig) reopen(bootID string) {
	r.close()
	r.open(bootID)
}

func (r *rig) create(doc string) spec.VM {
	r.t.Helper()
	v, err := r.Create(tree(r.t, doc), false)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// done waits for a task and checks how it ended.
func (r *rig) done(t spec.Task, err error) spec.Task {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	t, err = r.tasks.Wait(ctx, t.ID)
	if err != nil || !task.Final(t.State) {
		r.t.Fatalf("task %+v, %v", t, err)
	}
	return t
}

func (r *rig) good(t spec.Task, err error) {
	r.t.Helper()
	if got := r.done(t, err); got.State != spec.TaskStateSucceeded {
		r.t.Fatalf("task %s of %s %s: %+v", got.Kind, got.Target, got.State, got.Error)
	}
}

// state waits for a state that comes by itself.
func (r *rig) state(name string, want spec.VMState) spec.VM {
	r.t.Helper()
	sub := r.Bus.Subscribe(64)
	defer sub.Close()
	timeout := time.After(20 * time.Second)
	for {
		v, err := r.Get(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if v.State == want {
			return v
		}
		select {
		case <-sub.C:
		case <-timeout:
			r.t.Fatalf("VM %s is %s (%s), want %s", name, v.State, v.Reason, want)
		}
	}
}

func (r *rig) start(name string) {
	r.t.Helper()
	r.good(r.Start(r.t.Context(), name, "req-1"))
}

func wantCode(t *testing.T, err error, code qverr.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want code %d", err, code)
	}
}
