package machine

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// request is what a vCPU shall do; it is guarded by Machine.mu.
type request int

const (
	requestRun request = iota
	requestPause
	requestStop
)

// phase is where a vCPU is; it is guarded by Machine.mu.
type phase int

const (
	phaseRunning phase = iota
	phaseParked
	phaseGone
)

// vcpu is one thread of the guest. It looks at its request only after KVM_RUN
// returned EINTR, because whoever changes the request makes that happen: first
// it sets the request, then immediate_exit, then it signals the thread. The
// vCPU clears immediate_exit before it reads the request, so it either sees the
// request or has its next KVM_RUN return at once. No kick is lost, and an access
// to a port or to MMIO is always complete when the vCPU parks.
type vcpu struct {
	m          *Machine
	id         int
	generation int
	kvm        *kvm.VCPU
	counters   *counters
	trail      trail // of the thread; read by others only while it is parked

	// Guarded by Machine.mu.
	request request
	phase   phase
	held    bool // waits for what the machine does about its event
	tid     int
}

// ask gives all vCPUs a request and waits until they obey; m.ctl is held.
func (m *Machine) ask(r request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.vcpus {
		v.request = r
		v.kick()
	}
	m.cond.Broadcast()
	for _, v := range m.vcpus {
		for r == requestPause && v.phase == phaseRunning || r == requestStop && v.phase != phaseGone {
			m.cond.Wait()
		}
	}
	if r == requestStop {
		for _, v := range m.vcpus {
			_ = v.kvm.Close()
		}
		m.vcpus = nil
	}
}

// kick ends the vCPU's present or next KVM_RUN; m.mu is held.
func (v *vcpu) kick() {
	if v.phase != phaseRunning {
		return
	}
	v.kvm.SetImmediateExit(true)
	if v.tid != 0 {
		// SIGURG is the runtime's own signal for preemption: its handler
		// expects strays. It can fail only when the thread is gone.
		_ = unix.Tgkill(os.Getpid(), v.tid, unix.SIGURG)
	}
}

// main is the thread of the vCPU.
func (v *vcpu) main() {
	runtime.LockOSThread()
	if cpus := v.m.pins(v.id); len(cpus) == 0 {
		defer runtime.UnlockOSThread()
	} else if err := pin(cpus); err != nil { // the thread ends with this function
		v.hold(event{kind: eventFailure, err: err})
	}
	v.m.mu.Lock()
	v.tid = unix.Gettid()
	v.counters.follow(v.tid)
	v.m.mu.Unlock()
	nameThread("vcpu" + strconv.Itoa(v.id))
	defer nameThread("hv") // it goes on as a thread of the runtime
	if v.id == 0 {
		v.m.firstEntry.CompareAndSwap(0, time.Now().UnixNano())
	}
	for v.obey() && v.enter() {
	}
	v.m.mu.Lock()
	v.counters.unfollow()
	v.tid, v.phase = 0, phaseGone
	v.m.cond.Broadcast()
	v.m.mu.Unlock()
}

// nameThread names the calling thread, for top and for the daemon, which reads how long
// a vCPU waits for a CPU. The name is advice only.
func nameThread(name string) {
	b := append([]byte(name), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}

// obey waits while the vCPU shall not run; it is false when it shall end.
func (v *vcpu) obey() bool {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	for v.request == requestPause || v.held && v.request != requestStop {
		if v.phase != phaseParked {
			v.phase = phaseParked
			v.m.cond.Broadcast()
		}
		v.m.cond.Wait()
	}
	if v.phase == phaseParked && v.request == requestRun {
		v.phase = phaseRunning
		v.kvm.NotePause()
	}
	return v.request != requestStop
}

// enter runs guest code until there is a request to look at; it is false when
// the thread has nothing left to do.
func (v *vcpu) enter() bool {
	for {
		err := v.kvm.Run()
		switch {
		case err == nil:
			v.counters.count(v.kvm.ExitReason())
			v.trail.add(v.kvm)
			e := v.dispatch()
			if e.kind == 0 {
				continue
			}
			v.hold(e)
			return true
		case errors.Is(err, unix.EINTR):
			v.counters.count(kvm.ExitIntr)
			v.kvm.SetImmediateExit(false)
			return true
		case errors.Is(err, unix.EAGAIN):
			// A vCPU that waited for its start-up message just got it.
		default:
			v.hold(event{kind: eventFailure, err: v.runError(err)})
			return true
		}
	}
}

// hold tells the machine e and keeps the vCPU from running on.
func (v *vcpu) hold(e event) {
	v.m.mu.Lock()
	v.held = true
	v.m.mu.Unlock()
	e.generation, e.vcpu = v.generation, v.id
	v.m.post(e)
}

func (v *vcpu) runError(err error) error {
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EHWPOISON) {
		e := qverr.New(qverr.EPTViolation, "vCPU %d: the guest used memory that is not there: %w", v.id, err)
		if v.kvm.ExitReason() == kvm.ExitMemoryFault {
			e = e.With("address", v.kvm.FaultAddr())
		}
		return e
	}
	return qverr.New(qverr.VMExit, "vCPU %d: KVM_RUN: %w", v.id, err)
}
