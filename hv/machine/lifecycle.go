package machine

import (
	"errors"
	"time"

	"quantavirt/internal/qverr"
)

// event is what a vCPU, a device or KVM wants of the machine as a whole.
type event struct {
	generation int // of the vCPUs that sent it; -1 from elsewhere
	vcpu       int // that sent it; -1 from elsewhere
	kind       eventKind
	err        error
}

type eventKind int

const (
	eventReset eventKind = iota + 1
	eventPowerOff
	eventTripleFault
	eventFailure
)

// post never blocks: each vCPU has at most one event under way, and a failure
// that finds the queue full comes after another that ends the machine.
func (m *Machine) post(e event) {
	select {
	case m.events <- e:
	default:
	}
}

// Fail ends the machine because of err, which carries a catalogue code.
func (m *Machine) Fail(err error) {
	m.post(event{generation: -1, vcpu: -1, kind: eventFailure, err: err})
}

// Start places the BARs, loads the kernel and runs the vCPUs.
func (m *Machine) Start() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s := m.State(); s != Built {
		return qverr.New(qverr.State, "start: the machine is %s", s)
	}
	if err := m.placeBARs(); err != nil {
		return err
	}
	if err := m.launch(Running); err != nil {
		return err
	}
	m.wg.Go(m.supervise)
	m.setState(Running)
	return nil
}

// placeBARs does as firmware does where there is none.
func (m *Machine) placeBARs() error {
	if m.firmware != nil {
		m.bus.Settle()
		return nil
	}
	return m.bus.Place()
}

// load loads the guest, or waits until New has; m.ctl is held.
func (m *Machine) load() (entryPoint, error) {
	if m.first == nil {
		return m.loadGuest()
	}
	l := <-m.first
	m.first = nil
	return l.entry, l.err
}

// launch loads the kernel and makes one generation of vCPUs; m.ctl is held.
func (m *Machine) launch(s State) error {
	entry, err := m.load()
	if err != nil {
		return err
	}
	vcpus, err := m.makeVCPUs(entry)
	if err != nil {
		return err
	}
	// The kernel uses nearly all of itself while it boots: an exit for each page would
	// be two fifths of those until its init.
	for _, s := range m.image {
		vcpus[0].kvm.PreFault(s.addr, s.size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.vcpus = vcpus
	for _, v := range vcpus {
		v.generation = m.generation
		if s == Paused {
			v.request = requestPause
		}
		go v.main()
	}
	return nil
}

// supervise does what the guest asks for, one thing after the other.
func (m *Machine) supervise() {
	for {
		select {
		case <-m.done:
			return
		case e := <-m.events:
			if e.kind == eventReset {
				m.slowDown()
			}
			m.handle(e)
		}
	}
}

// How often a guest may reset the machine: so many times at once, then so often a
// second. A guest that does nothing else would keep a CPU busy with loading it.
const (
	resetRate  = 1
	resetBurst = 8
)

// slowDown waits until the guest may reset the machine, or the machine has ended.
func (m *Machine) slowDown() {
	wait := m.pace.Reserve().Delay()
	if wait == 0 {
		return
	}
	m.log.Warn("the guest resets the machine over and over", "wait", wait)
	select {
	case <-m.done:
	case <-time.After(wait):
	}
}

func (m *Machine) handle(e event) {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.State() == Ended || e.generation >= 0 && e.generation != m.generation {
		return // another vCPU was first
	}
	switch e.kind {
	case eventReset:
		m.log.Info("the guest resets the machine")
		if err := m.reset(); err != nil {
			m.end(Exit{Reason: Failed, Err: err})
		}
	case eventPowerOff:
		m.end(Exit{Reason: PoweredOff})
	case eventTripleFault:
		m.crash(TripleFault, e)
	case eventFailure:
		m.crash(Failed, e)
	}
}

// Pause stops all vCPUs. When it returns, none runs guest code. Time goes on for
// the guest: its clocks show the wall clock after Resume.
func (m *Machine) Pause() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s := m.State(); s != Running {
		return qverr.New(qverr.State, "pause: the machine is %s", s)
	}
	m.ask(requestPause)
	m.setState(Paused)
	return nil
}

// Resume lets the vCPUs of a paused machine run on.
func (m *Machine) Resume() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s := m.State(); s != Paused {
		return qverr.New(qverr.State, "resume: the machine is %s", s)
	}
	m.ask(requestRun)
	m.setState(Running)
	return nil
}

// Reset is the reset button. A paused machine stays paused.
func (m *Machine) Reset() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s := m.State(); s != Running && s != Paused {
		return qverr.New(qverr.State, "reset: the machine is %s", s)
	}
	if err := m.reset(); err != nil {
		m.end(Exit{Reason: Failed, Err: err})
		return err
	}
	return nil
}

// reset runs under m.ctl in state Running or Paused.
func (m *Machine) reset() error {
	m.ask(requestStop)
	fresh, err := m.newVM()
	if err != nil {
		return err
	}
	old := m.vm
	m.vm = fresh
	// The new VM takes over all eventfds first: the devices' reset then
	// undoes them one by one as it would on any other day.
	if err := errors.Join(m.host.move(fresh), old.Close()); err != nil {
		return err
	}
	m.uart.Reset()
	m.pm.reset()
	m.rtc.reset()
	if m.firmware != nil {
		m.firmware.reset()
	}
	if err := m.bus.Reset(); err != nil {
		return err
	}
	if err := m.mem.Discard(); err != nil {
		return err
	}
	m.mu.Lock()
	m.resets++
	m.mu.Unlock()
	return m.launch(m.State())
}

// PowerButton presses the ACPI power button. Whether the guest heeds it is its
// own affair.
func (m *Machine) PowerButton() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s := m.State(); s != Running {
		return qverr.New(qverr.State, "power button: the machine is %s", s)
	}
	m.pm.pressPowerButton()
	return nil
}

// Quit ends the machine at once, as pulling the plug would. It does nothing when
// it has ended.
func (m *Machine) Quit() {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.State() != Ended {
		m.end(Exit{Reason: Quit})
	}
}

// end stops the vCPUs for good; m.ctl is held.
func (m *Machine) end(e Exit) {
	m.ask(requestStop)
	m.mu.Lock()
	m.exit = e
	m.mu.Unlock()
	if e.Err != nil {
		m.log.Error("the machine ends", "reason", e.Reason.String(), "err", e.Err)
	} else {
		m.log.Info("the machine ends", "reason", e.Reason.String())
	}
	m.setState(Ended)
	close(m.done)
}
