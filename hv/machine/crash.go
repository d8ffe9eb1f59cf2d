package machine

import (
	"encoding/binary"

	"quantavirt/hv/kvm"
)

// trailSize is how many exits of each vCPU are remembered.
const trailSize = 16

// LastExit is one of the last returns of a vCPU to user space.
type LastExit struct {
	Reason uint32 // KVM_EXIT_*
	// Of an access to a port or to memory without RAM: where, how many bytes, and
	// for a write the first eight of them.
	Addr  uint64
	Size  int
	Write bool
	Data  uint64
}

// trail remembers the last exits. Only the vCPU's thread writes it.
type trail struct {
	exits [trailSize]LastExit
	count uint64
}

func (t *trail) add(c *kvm.VCPU) {
	e := &t.exits[t.count%trailSize]
	t.count++
	*e = LastExit{Reason: c.ExitReason()}
	switch e.Reason {
	case kvm.ExitIO:
		io := c.IO()
		e.Addr, e.Size, e.Write = uint64(io.Port), io.Size, io.Write
		e.Data = firstBytes(io.Write, io.Data)
	case kvm.ExitMMIO:
		m := c.MMIO()
		e.Addr, e.Size, e.Write = m.Addr, len(m.Data), m.Write
		e.Data = firstBytes(m.Write, m.Data)
	}
}

func firstBytes(write bool, data []byte) uint64 {
	if !write {
		return 0
	}
	var b [8]byte
	copy(b[:], data)
	return binary.LittleEndian.Uint64(b[:])
}

// list is the trail, oldest exit first.
func (t *trail) list() []LastExit {
	var out []LastExit
	for i := t.count - min(t.count, trailSize); i < t.count; i++ {
		out = append(out, t.exits[i%trailSize])
	}
	return out
}

// Crash is what the vCPUs were at when the machine failed.
type Crash struct {
	VCPU  int // the one that failed; -1 when none did
	VCPUs []VCPUCrash
	// RegistersReset says that the registers of the failed vCPU are those of an
	// INIT: KVM resets it at a shutdown on AMD (svm.c, shutdown_interception), where
	// the hardware leaves its state undefined.
	RegistersReset bool
}

// VCPUCrash is one vCPU of a crash.
type VCPUCrash struct {
	Regs  kvm.Regs
	Sregs kvm.Sregs
	Err   error // why there are no registers
	Last  []LastExit
}

// crash ends the machine because of e and keeps what the vCPUs were at; m.ctl is held.
func (m *Machine) crash(reason Reason, e event) {
	m.ask(requestPause) // their threads give the registers free
	c := &Crash{VCPU: e.vcpu, RegistersReset: reason == TripleFault && m.system.AMD()}
	m.mu.Lock()
	vcpus := m.vcpus
	m.mu.Unlock()
	for _, v := range vcpus {
		s := VCPUCrash{Last: v.trail.list()}
		if s.Regs, s.Err = v.kvm.Regs(); s.Err == nil {
			s.Sregs, s.Err = v.kvm.Sregs()
		}
		c.VCPUs = append(c.VCPUs, s)
	}
	m.end(Exit{Reason: reason, Err: e.err, Crash: c})
}
