package process

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"quantavirt/hv/config"
	"quantavirt/hv/machine"
	"quantavirt/hv/virtio/balloon"
	vconsole "quantavirt/hv/virtio/console"
	"quantavirt/hv/virtio/vsock"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// VM is the machine of this process and what the control socket does to it.
type VM struct {
	cfg      config.Machine
	log      *slog.Logger
	consoles map[string]*console
	machine  *machine.Machine
	devices  []device
	disks    []disk
	nics     []nic
	balloon  *balloon.Device // nil for none
	pci      passthrough

	virtioConsole *vconsole.Device
	sockets       *vsock.Sockets // nil with vhost-vsock
	dialer        dialer

	// ctl serializes what an operator asks. The guest does as it likes meanwhile.
	ctl sync.Mutex

	mu      sync.Mutex // guards what follows
	state   vmm.State
	last    vmm.State // the state before this one
	since   time.Time
	started time.Time
	changed chan struct{} // closed and replaced when the state changes
	// pressed is when the power button was pressed, and at how many resets: a
	// guest that was reset since has forgotten it.
	pressed       *time.Time
	pressedResets uint64
}

func newVM(cfg config.Machine, log *slog.Logger) *VM {
	return &VM{cfg: cfg, log: log, consoles: map[string]*console{}, state: vmm.StateStarting,
		since: time.Now(), changed: make(chan struct{})}
}

// start builds the machine, has seal forbid what that needed, and lets it run. It
// tells when the machine was built.
func (vm *VM) start(files map[string]*os.File, seal func() error) (built time.Time, err error) {
	vm.ctl.Lock()
	defer vm.ctl.Unlock()
	if err := vm.build(files); err != nil {
		return built, err
	}
	built = time.Now()
	if err := seal(); err != nil {
		return built, err
	}
	if err := vm.machine.Start(); err != nil {
		return built, err
	}
	vm.advance(vmm.ActionStarted)
	return built, nil
}

// machineState hears of each state of the machine. Only its end is news: all
// else happens because this process asked for it.
func (vm *VM) machineState(s machine.State) {
	if s == machine.Ended {
		vm.advance(vmm.ActionGuestEnd)
	}
}

// advance makes a state change that nothing refuses any more.
func (vm *VM) advance(a vmm.Action) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	next, err := vmm.Next(vm.state, a)
	if err != nil {
		return // the machine ended first
	}
	if a == vmm.ActionStarted {
		vm.started = time.Now()
	}
	if next != vm.state {
		vm.last, vm.state, vm.since = vm.state, next, time.Now()
		close(vm.changed)
		vm.changed = make(chan struct{})
	}
}

// check refuses an action that is not legal now.
func (vm *VM) check(a vmm.Action) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	_, err := vmm.Next(vm.state, a)
	return err
}

// do carries out what an operator asks for.
func (vm *VM) do(a vmm.Action) error {
	vm.ctl.Lock()
	defer vm.ctl.Unlock()
	if err := vm.check(a); err != nil {
		return err
	}
	if err := vm.carryOut(a); err != nil {
		return err
	}
	vm.advance(a)
	return nil
}

func (vm *VM) carryOut(a vmm.Action) error {
	switch a {
	case vmm.ActionPause:
		return vm.pause()
	case vmm.ActionResume:
		return vm.resume()
	case vmm.ActionReset:
		return vm.machine.Reset()
	case vmm.ActionPowerButton:
		return vm.powerButton()
	case vmm.ActionQuit:
		vm.machine.Quit()
		return nil
	}
	return qverr.New(qverr.Unsupported, "action %q is unknown", a)
}

// pause stops the vCPUs first: devices that are quiet then stay so.
func (vm *VM) pause() error {
	if err := vm.machine.Pause(); err != nil {
		return err
	}
	for i, d := range vm.devices {
		if err := d.transport.Pause(); err != nil {
			for _, done := range vm.devices[:i+1] {
				_ = done.transport.Resume()
			}
			_ = vm.machine.Resume()
			return qverr.New(qverr.VMPause, "%s does not pause: %w", d.info.ID, err)
		}
	}
	return nil
}

func (vm *VM) resume() error {
	for _, d := range vm.devices {
		if err := d.transport.Resume(); err != nil {
			return qverr.New(qverr.VMResume, "%s does not resume: %w", d.info.ID, err)
		}
	}
	return vm.machine.Resume()
}

func (vm *VM) powerButton() error {
	if err := vm.machine.PowerButton(); err != nil {
		return err
	}
	resets := vm.machine.Stats().Resets
	now := time.Now().UTC()
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.pressed, vm.pressedResets = &now, resets
	return nil
}

// info is what the process says about itself.
func (vm *VM) info() vmm.Info {
	resets := uint64(0)
	if vm.hasMachine() {
		resets = vm.machine.Stats().Resets
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	i := vmm.Info{Name: vm.cfg.Name, UUID: vm.cfg.UUID, Version: version(), State: vm.state, Since: vm.since.UTC(),
		Started: vm.started.UTC(), CPUs: vm.cfg.CPUs, Memory: vm.cfg.Memory, Resets: int(resets), Devices: []vmm.Device{}}
	if vm.pressed != nil && vm.pressedResets == resets {
		i.PowerButton = vm.pressed
	}
	if vm.cfg.Vsock != nil {
		i.CID = vm.cfg.Vsock.CID
	}
	if vm.started.IsZero() {
		return i // the devices are being built
	}
	for _, d := range vm.devices {
		info := d.info
		info.Ready = d.transport.Ready()
		if err := d.transport.Broken(); err != nil {
			info.Broken = err.Error()
		}
		i.Devices = append(i.Devices, info)
	}
	i.Devices = append(i.Devices, vm.pci.info()...)
	return i
}

// hasMachine tells whether the machine is built and may be used without ctl.
func (vm *VM) hasMachine() bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return !vm.started.IsZero()
}

// lastState is the state that the VM was in before it ended.
func (vm *VM) lastState() vmm.State {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.last
}

// wait returns when the state is not since any more, or when cancel is closed.
func (vm *VM) wait(since vmm.State, cancel <-chan time.Time) {
	for {
		vm.mu.Lock()
		state, changed := vm.state, vm.changed
		vm.mu.Unlock()
		if state != since {
			return
		}
		select {
		case <-changed:
		case <-cancel:
			return
		}
	}
}
