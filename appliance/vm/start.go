package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/hostpci"
	"quantavirt/appliance/task"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// firstUID is the user of the VM with context id 0; each VM runs as its own.
const firstUID = 1 << 17

// Names of descriptors that a VM gets.
const (
	fileKernel   = "kernel"
	fileUnpacked = "kernel-unpacked"
	fileInitrd   = "initrd"
	fileFirmware = "firmware"
	fileNetROM   = "net-rom"
	fileConsole  = "console-log"
	fileSerial   = "serial-log"
	fileVsock    = "vsock"
)

// processLog is the name of the log of a VM process, beside its consoles.
const processLog = "hv.log"

// Start starts a VM. What can be known before is refused at once: the state, no
// KVM, names that lead nowhere, memory, locked disks.
func (s *Service) Start(ctx context.Context, name, requestID string) (spec.Task, error) {
	return s.start(ctx, name, requestID, false)
}

func (s *Service) start(ctx context.Context, name, requestID string, again bool) (spec.Task, error) {
	if err := s.startable(name); err != nil {
		return spec.Task{}, err
	}
	if err := s.KVM(ctx); err != nil {
		return spec.Task{}, err
	}
	lent, err := s.reserve(ctx, name)
	if err != nil {
		return spec.Task{}, err
	}
	t, err := s.claimAndLaunch(name, requestID, again, lent)
	if err != nil && len(lent) > 0 {
		s.PCI.Return(name, lent)
	}
	return t, err
}

// claimAndLaunch refuses what is known at once, and begins the task.
func (s *Service) claimAndLaunch(name, requestID string, again bool, lent []hostpci.Lent) (spec.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.claim(name, ActStart)
	if err != nil {
		return spec.Task{}, err
	}
	if err := s.checkReferences(&m.rec.Config); err != nil {
		return spec.Task{}, err
	}
	if err := checkNode(sysNodes, &m.rec.Config); err != nil {
		return spec.Task{}, err
	}
	if err := s.admit(m); err != nil {
		return spec.Task{}, err
	}
	plan, err := s.build(m)
	if err != nil {
		m.limit = 0
		return spec.Task{}, err
	}
	t, err := s.launch(m, ActStart, "vm.start", requestID, false, func(ctx context.Context, p *task.Progress) error {
		return s.boot(ctx, m, plan, lent, p, again)
	})
	if err != nil {
		m.limit = 0
		return spec.Task{}, errors.Join(err, closeAll(plan.Files), closeLog(&plan))
	}
	return t, nil
}

// startable is what is wrong from the state alone.
func (s *Service) startable(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.claim(name, ActStart)
	if err == nil && s.closing {
		return qverr.New(qverr.Again, "start VM %s: the node goes down", name)
	}
	return err
}

func closeLog(plan *vmm.Spec) error {
	if plan.Log == nil {
		return nil
	}
	return plan.Log.Close()
}

// build opens everything that the VM gets but its network ports.
func (s *Service) build(m *machine) (vmm.Spec, error) {
	c := &m.rec.Config
	plan := vmm.Spec{
		Binary:    s.Binary,
		Name:      c.Name,
		Files:     make(map[string]*os.File),
		Cgroup:    s.cgroup(c.Name),
		MemoryMax: m.limit,
		CPUWeight: uint64(c.CPU.Shares),
		CPULimit:  c.CPU.Limit,
		UID:       firstUID + m.rec.CID,
		GID:       firstUID + m.rec.CID,
		RunDir:    s.RunDir,
		NoJail:    s.NoJail,
		Machine: config.Machine{
			Name: c.Name, UUID: c.UUID, Type: c.Machine, Generation: m.rec.Generation, CPUs: c.CPU.Count, CPU: cpuOf(c),
			Memory: int64(c.Memory.Size), MemoryFrom: memoryFrom(c),
			Boot: config.Boot{Kernel: fileKernel, Cmdline: c.Boot.Cmdline}, Balloon: balloonOf(c), Ports: c.ConsolePorts,
		},
	}
	for _, open := range []func(*machine, *vmm.Spec) error{s.openBoot, s.openDisks, s.openConsoles, s.openVsock} {
		if err := open(m, &plan); err != nil {
			return vmm.Spec{}, errors.Join(err, closeAll(plan.Files), closeLog(&plan))
		}
	}
	return plan, nil
}

func (s *Service) openBoot(m *machine, plan *vmm.Spec) error {
	b := &m.rec.Config.Boot
	if b.Firmware == spec.BootConfigFirmwareSeabios {
		return s.openFirmware(m, plan)
	}
	kernel, err := s.Storage.OpenImage(b.Kernel, spec.ImageKindKernel)
	if err != nil {
		return err
	}
	plan.Files[fileKernel] = kernel
	if !m.rec.Config.PQC.Attestation { // of the unpacked form nobody elsewhere knows the digest
		unpacked, err := s.Storage.OpenUnpacked(b.Kernel)
		if err != nil {
			return err
		}
		if unpacked != nil {
			plan.Files[fileUnpacked] = unpacked
			plan.Machine.Boot.Unpacked = fileUnpacked
		}
	}
	if b.Initrd == "" {
		return nil
	}
	initrd, err := s.Storage.OpenImage(b.Initrd, spec.ImageKindInitrd)
	if err != nil {
		return err
	}
	plan.Files[fileInitrd] = initrd
	plan.Machine.Boot.Initrd = fileInitrd
	return nil
}

func (s *Service) openDisks(m *machine, plan *vmm.Spec) error {
	for i, d := range m.rec.Config.Storage {
		var f *os.File
		var err error
		if d.Disk != "" {
			f, err = s.Storage.OpenDisk(d.Disk, d.Readonly)
		} else {
			f, err = s.Storage.OpenPath(d.Path, d.Readonly)
		}
		if errors.Is(err, qverr.StrLock) {
			return s.lockedBy(m, d, err)
		}
		if err != nil {
			return err
		}
		id := diskID(i)
		plan.Files[id] = f
		plan.Machine.Disks = append(plan.Machine.Disks, config.Disk{
			ID: id, File: id, Format: "raw", ReadOnly: d.Readonly, Serial: d.Serial,
			Queues: d.Queues, Cache: string(d.Cache), Discard: d.Discard, Limits: diskLimits(&d),
		})
	}
	return nil
}

// lockedBy says which VM has a disk; it needs the lock.
func (s *Service) lockedBy(m *machine, d spec.StorageConfig, err error) error {
	for name, other := range s.vms {
		if other == m || other.limit == 0 {
			continue
		}
		for _, theirs := range other.rec.Config.Storage {
			if theirs.Disk == d.Disk && theirs.Path == d.Path {
				return qverr.New(qverr.StrLock, "disk %s is locked by VM '%s' (pid %d)", d.Disk+d.Path, name, other.rec.PID).
					With("disk", d.Disk+d.Path).With("locked_by", name)
			}
		}
	}
	return err
}

func (s *Service) consoleDir(name string) string {
	return filepath.Join(s.DataDir, "logs", "consoles", name)
}

// openConsoles opens the rings of both consoles, and the log of the VM process:
// a file, because a pipe to the daemon would end with it.
func (s *Service) openConsoles(m *machine, plan *vmm.Spec) error {
	dir := s.consoleDir(m.rec.Config.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return qverr.New(qverr.StrOpen, "console log: %w", err)
	}
	for _, console := range []struct{ file, name string }{{fileConsole, vmm.ConsoleVirtio}, {fileSerial, vmm.ConsoleSerial}} {
		f, err := ring.Create(filepath.Join(dir, console.name), ring.DefaultSize)
		if err != nil {
			return err
		}
		plan.Files[console.file] = f
	}
	plan.Machine.ConsoleLog, plan.Machine.SerialLog = fileConsole, fileSerial
	log, err := os.OpenFile(filepath.Join(dir, processLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return qverr.New(qverr.StrOpen, "log of the VM process: %w", err)
	}
	plan.Log = log
	return nil
}

// openVsock gives the VM its vsock device: on UNIX sockets where the node has no
// vhost-vsock.
func (s *Service) openVsock(m *machine, plan *vmm.Spec) error {
	v := &config.Vsock{CID: m.rec.CID}
	plan.Machine.Vsock = v
	f, err := openDevice("/dev/vhost-vsock")
	if err != nil {
		return err
	}
	if f != nil {
		v.Vhost = fileVsock
	} else {
		v.Sockets = fileVsock
		if f, err = vmm.ListenVsock(s.RunDir, m.rec.Config.Name); err != nil {
			return err
		}
	}
	plan.Files[fileVsock] = f
	return nil
}

// openDevice is nil for a device that is not there.
func openDevice(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.NoDev, "open %s: %w", path, err)
	}
	return f, nil
}

// boot is the task of a start.
func (s *Service) boot(ctx context.Context, m *machine, plan vmm.Spec, lent []hostpci.Lent, p *task.Progress, again bool) (err error) {
	name := m.rec.Config.Name
	defer func() {
		if closeErr := errors.Join(closeAll(plan.Files), closeLog(&plan)); closeErr != nil {
			s.Log.Error("close the files of VM "+name, "err", qverr.New(qverr.IO, "%w", closeErr))
		}
		if err != nil {
			s.failed(m, lent, err)
		}
	}()
	measured, err := s.measure(ctx, m, &plan, p)
	if err != nil {
		return coded(qverr.VMStart, err, "start VM %s", name)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p.Phase("network")
	if err := s.addPorts(ctx, m, &plan); err != nil {
		return coded(qverr.VMStart, err, "start VM %s", name)
	}
	s.mu.Lock()
	m.rec.Starting, m.rec.BootID, m.rec.Measured, m.rec.Lent = true, s.bootID, measured, lent
	err = s.save(m)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.takeFunctions(ctx, m, &plan, lent, p); err != nil {
		return coded(qverr.VMStart, err, "start VM %s", name)
	}
	p.Phase("VM process")
	proc, err := s.VMM.Spawn(ctx, plan)
	if err != nil {
		return coded(qverr.VMStart, err, "start VM %s", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if again {
		m.rec.Restarts++
	} else {
		m.rec.Restarts = 0
	}
	m.through()
	s.runs(m, proc, spec.VMStateRUNNING)
	return nil
}

// runs records that m has a process and watches it; it needs the lock.
func (s *Service) runs(m *machine, proc Process, state spec.VMState) {
	if m.rec.StartedAt == nil || m.rec.PID != proc.PID() {
		t := now()
		m.rec.StartedAt = &t
	}
	m.rec.PID, m.rec.Starting, m.rec.BootID = proc.PID(), false, s.bootID
	m.run = &run{proc: proc, done: make(chan struct{})}
	s.enter(m, state, "", initapi.Problem{})
	s.wg.Add(1)
	go s.watch(m, m.run)
	s.wg.Go(func() { s.serveVsock(m.rec.Config.Name, proc) })
}

// serveVsock makes the connections that a guest without vhost-vsock asks for, as long as
// its process or this daemon lives. Most guests need none.
func (s *Service) serveVsock(name string, proc Process) {
	if err := proc.ServeVsock(s.ctx); err != nil && qverr.CodeOf(err) != qverr.NoEnt && s.ctx.Err() == nil {
		s.Log.Warn("vsock of VM "+name, "err", err)
	}
}

// failed puts a VM back after a start that led to no process.
func (s *Service) failed(m *machine, lent []hostpci.Lent, err error) {
	s.removePorts(m)
	s.returnFunctions(m.rec.Config.Name, lent)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.limit, m.rec.Starting, m.rec.Measured, m.rec.Lent = 0, false, nil, nil
	s.enter(m, m.rec.State, "the last start failed", problemOf(err))
}

func (s *Service) removePorts(m *machine) {
	c := &m.rec.Config
	for i, n := range c.Network {
		if err := s.Network.RemovePort(context.Background(), n.Network, portOf(c, i)); err != nil && qverr.CodeOf(err) != qverr.NoEnt {
			s.Log.Warn("remove a port of VM "+c.Name, "err", err)
		}
	}
}
