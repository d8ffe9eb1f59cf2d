package machine

import (
	"fmt"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// dispatch serves one exit. The event is zero when the vCPU shall run on.
func (v *vcpu) dispatch() event {
	switch v.kvm.ExitReason() {
	case kvm.ExitIO:
		return v.m.portAccess(v.kvm.IO())
	case kvm.ExitMMIO:
		v.m.memoryAccess(v.kvm.MMIO())
		return event{}
	case kvm.ExitIntr, kvm.ExitHLT:
		return event{}
	case kvm.ExitShutdown:
		return event{kind: eventTripleFault,
			err: qverr.New(qverr.TripleFault, "vCPU %d: triple fault", v.id).With("vcpu", v.id)}
	case kvm.ExitSystemEvent:
		return v.systemEvent()
	default:
		return event{kind: eventFailure, err: v.exitError()}
	}
}

func (v *vcpu) systemEvent() event {
	switch v.kvm.Event() {
	case kvm.EventShutdown:
		return event{kind: eventPowerOff}
	case kvm.EventReset:
		return event{kind: eventReset}
	}
	return event{kind: eventFailure,
		err: qverr.New(qverr.VMExit, "vCPU %d: system event %d", v.id, v.kvm.Event())}
}

// exitError describes an exit that the guest cannot go on from.
func (v *vcpu) exitError() error {
	reason := v.kvm.ExitReason()
	var e *qverr.Error
	switch reason {
	case kvm.ExitFailEntry:
		// The first entry is VMLAUNCH on Intel, later ones are VMRESUME; the
		// distinction helps with VMRUN too.
		code := qverr.VMResumeInsn
		if v.counters.total() == 1 {
			code = qverr.VMLaunchInsn
		}
		e = qverr.New(code, "vCPU %d: the hardware refuses to enter the guest: %#x", v.id, v.kvm.Reason()).
			With("hardware_reason", v.kvm.Reason())
	case kvm.ExitInternalError:
		sub, data := v.kvm.Internal()
		e = qverr.New(qverr.VMExit, "vCPU %d: KVM internal error %d: %x", v.id, sub, data).With("suberror", sub)
	case kvm.ExitMemoryFault:
		e = qverr.New(qverr.EPTViolation, "vCPU %d: memory fault at %#x", v.id, v.kvm.FaultAddr()).
			With("address", v.kvm.FaultAddr())
	case kvm.ExitUnknown:
		e = qverr.New(qverr.VMExit, "vCPU %d: unknown hardware exit %#x", v.id, v.kvm.Reason()).
			With("hardware_reason", v.kvm.Reason())
	default:
		e = qverr.New(qverr.VMExit, "vCPU %d: unexpected exit %d", v.id, reason)
	}
	if r, err := v.kvm.Regs(); err == nil {
		e = e.With("rip", fmt.Sprintf("%#x", r.RIP))
	}
	return e.With("exit_reason", reason).With("vcpu", v.id)
}

// memoryAccess serves an access where no RAM is. What nobody claims reads as
// ones and swallows writes, as on a PC.
func (m *Machine) memoryAccess(a kvm.MMIO) {
	n := uint64(len(a.Data))
	switch {
	case a.Addr >= ecamBase && a.Addr < ecamBase+ecamSize && n <= ecamBase+ecamSize-a.Addr:
		if a.Write {
			m.bus.WriteECAM(a.Addr-ecamBase, a.Data)
		} else {
			m.bus.ReadECAM(a.Addr-ecamBase, a.Data)
		}
	case a.Write:
		m.bus.WriteMMIO(a.Addr, a.Data)
	case !m.bus.ReadMMIO(a.Addr, a.Data):
		ones(a.Data)
	}
}

func ones(data []byte) {
	for i := range data {
		data[i] = 0xff
	}
}
