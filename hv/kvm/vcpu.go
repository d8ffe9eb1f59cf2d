package kvm

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Reasons of an exit (KVM_EXIT_*).
const (
	ExitUnknown       = 0
	ExitIO            = 2
	ExitHLT           = 5
	ExitMMIO          = 6
	ExitShutdown      = 8
	ExitFailEntry     = 9
	ExitIntr          = 10
	ExitInternalError = 17
	ExitSystemEvent   = 24
	ExitMemoryFault   = 39
)

// Types of a system event.
const (
	EventShutdown = 1
	EventReset    = 2
	EventCrash    = 3
)

// Offsets in struct kvm_run.
const (
	runImmediateExit = 1
	runExitReason    = 8
	runUnion         = 32
)

// VCPU is one virtual CPU. All but Kick belongs to the thread that runs it.
type VCPU struct {
	id   int
	fd   int
	area []byte // struct kvm_run and the data of port accesses
}

// ID is the number given to CreateVCPU.
func (c *VCPU) ID() int { return c.id }

// Close gives up the vCPU.
func (c *VCPU) Close() error {
	err := unix.Munmap(c.area)
	if e := unix.Close(c.fd); err == nil {
		err = e
	}
	c.area, c.fd = nil, -1
	return err
}

// Run enters the guest until it exits. It returns EINTR as it is when a signal
// or SetImmediateExit ended it; what the previous exit left to be completed is
// complete then. It uses unix.Syscall, so that the Go scheduler may go on
// without this thread.
func (c *VCPU) Run() error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioRun, 0); errno != 0 {
		return errno
	}
	return nil
}

// SetImmediateExit makes the next Run, or with a signal the present one, return
// EINTR. Any thread may call it while the vCPU is open.
func (c *VCPU) SetImmediateExit(on bool) {
	// The flag is a byte; the one before it (request_interrupt_window) is
	// always 0 here, so both can be stored at once atomically.
	var word uint32
	if on {
		word = 1 << (8 * runImmediateExit)
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&c.area[0])), word)
}

// ExitReason tells why Run returned without an error.
func (c *VCPU) ExitReason() uint32 { return binary.LittleEndian.Uint32(c.area[runExitReason:]) }

// IO is an access to a port: Count items of Size bytes each, in Data. For a read,
// Data is to be filled.
type IO struct {
	Write bool
	Port  uint16
	Size  int
	Data  []byte
}

// IO describes an ExitIO.
func (c *VCPU) IO() IO {
	u := c.area[runUnion:]
	size, count := int(u[1]), int(binary.LittleEndian.Uint32(u[4:]))
	off := binary.LittleEndian.Uint64(u[8:])
	return IO{Write: u[0] == 1, Port: binary.LittleEndian.Uint16(u[2:]), Size: size, Data: c.area[off : off+uint64(size*count)]}
}

// MMIO is an access to an address without memory. For a read, Data is to be filled.
type MMIO struct {
	Write bool
	Addr  uint64
	Data  []byte
}

// MMIO describes an ExitMMIO.
func (c *VCPU) MMIO() MMIO {
	u := c.area[runUnion:]
	n := min(binary.LittleEndian.Uint32(u[16:]), 8)
	return MMIO{Write: u[20] != 0, Addr: binary.LittleEndian.Uint64(u), Data: u[8 : 8+n]}
}

// Reason is the detail of ExitUnknown and ExitFailEntry: what the hardware said.
func (c *VCPU) Reason() uint64 { return binary.LittleEndian.Uint64(c.area[runUnion:]) }

// Internal is the detail of ExitInternalError: the suberror and its data.
func (c *VCPU) Internal() (suberror uint32, data []uint64) {
	u := c.area[runUnion:]
	for i := range min(binary.LittleEndian.Uint32(u[4:]), 16) {
		data = append(data, binary.LittleEndian.Uint64(u[8+8*i:]))
	}
	return binary.LittleEndian.Uint32(u), data
}

// Event is the type of an ExitSystemEvent.
func (c *VCPU) Event() uint32 { return binary.LittleEndian.Uint32(c.area[runUnion:]) }

// FaultAddr is the guest address of an ExitMemoryFault.
func (c *VCPU) FaultAddr() uint64 { return binary.LittleEndian.Uint64(c.area[runUnion+8:]) }

// SetCPUID decides what the guest's CPUID instruction says.
func (c *VCPU) SetCPUID(leaves []CPUIDEntry) error {
	list := &cpuid2{count: uint32(len(leaves))}
	if copy(list.entries[:], leaves) != len(leaves) {
		return qverr.New(qverr.CPUID, "KVM: %d CPUID leaves are too many", len(leaves))
	}
	if err := ioctlPtr(c.fd, ioSetCPUID2, unsafe.Pointer(list)); err != nil {
		return fail(qverr.CPUID, "set the CPUID leaves", err)
	}
	return nil
}

// MSR is a model-specific register with its value.
type MSR struct {
	Index uint32
	_     uint32
	Value uint64
}

const maxMSRs = 64

type msrList struct {
	count, _ uint32
	entries  [maxMSRs]MSR
}

// SetMSRs writes model-specific registers, at most 64.
func (c *VCPU) SetMSRs(list []MSR) error {
	arg := &msrList{count: uint32(len(list))}
	if copy(arg.entries[:], list) != len(list) {
		return qverr.New(qverr.MSR, "KVM: %d MSRs are too many", len(list))
	}
	n, err := ioctlCount(c.fd, ioSetMSRs, unsafe.Pointer(arg))
	if err != nil {
		return fail(qverr.MSR, "set MSRs", err)
	}
	if n < len(list) {
		return qverr.New(qverr.MSR, "KVM: refuses value %#x for MSR %#x", list[n].Value, list[n].Index)
	}
	return nil
}

// MSRs reads the values of the registers in list, at most 64.
func (c *VCPU) MSRs(list []MSR) error {
	arg := &msrList{count: uint32(len(list))}
	if copy(arg.entries[:], list) != len(list) {
		return qverr.New(qverr.MSR, "KVM: %d MSRs are too many", len(list))
	}
	n, err := ioctlCount(c.fd, ioGetMSRs, unsafe.Pointer(arg))
	if err != nil {
		return fail(qverr.MSR, "read MSRs", err)
	}
	if n < len(list) {
		return qverr.New(qverr.MSR, "KVM: has no MSR %#x", list[n].Index)
	}
	copy(list, arg.entries[:])
	return nil
}

// States for SetMPState.
const (
	MPRunnable      = 0
	MPUninitialized = 1
)

// SetMPState decides whether the vCPU runs or waits for its start-up message.
func (c *VCPU) SetMPState(state uint32) error {
	if err := ioctlPtr(c.fd, ioSetMPState, unsafe.Pointer(&state)); err != nil {
		return fail(qverr.Generic, "set the MP state", err)
	}
	return nil
}

// MPState reads it.
func (c *VCPU) MPState() (uint32, error) {
	var state uint32
	if err := ioctlPtr(c.fd, ioGetMPState, unsafe.Pointer(&state)); err != nil {
		return 0, fail(qverr.Generic, "read the MP state", err)
	}
	return state, nil
}

// LAPIC is the register page of a local APIC.
type LAPIC [1024]byte

// LAPIC reads the local APIC.
func (c *VCPU) LAPIC() (*LAPIC, error) {
	l := new(LAPIC)
	if err := ioctlPtr(c.fd, ioGetLAPIC, unsafe.Pointer(l)); err != nil {
		return nil, fail(qverr.Generic, "read the LAPIC", err)
	}
	return l, nil
}

// SetLAPIC writes the local APIC.
func (c *VCPU) SetLAPIC(l *LAPIC) error {
	if err := ioctlPtr(c.fd, ioSetLAPIC, unsafe.Pointer(l)); err != nil {
		return fail(qverr.Generic, "set the LAPIC", err)
	}
	return nil
}

// TSCKHz is the frequency of the guest's time stamp counter.
func (c *VCPU) TSCKHz() (int, error) {
	n, err := ioctl(c.fd, ioGetTSCKHz, 0)
	if err != nil {
		return 0, fail(qverr.Generic, "read the TSC frequency", err)
	}
	return n, nil
}

type preFault struct {
	gpa, size, flags uint64
	_                [5]uint64
}

// PreFault maps the pages with size bytes of RAM at gpa for the guest, before it asks
// for them with an exit a page; those that nobody has written yet are allocated. It is
// advice: Linux knows it from 6.11 on (KVM_PRE_FAULT_MEMORY).
func (c *VCPU) PreFault(gpa, size uint64) {
	// The kernel says how far it came when a signal ended the call.
	const page = 4096
	begin, end := gpa&^(page-1), (gpa+size+page-1)&^(page-1)
	for r := (preFault{gpa: begin, size: end - begin}); r.size > 0; {
		if ioctlPtr(c.fd, ioPreFaultMemory, unsafe.Pointer(&r)) != nil {
			return
		}
	}
}

// NotePause tells the guest's watchdogs that it did not run for a while. A guest
// without kvmclock cannot be told; that is no error.
func (c *VCPU) NotePause() { _, _ = ioctl(c.fd, ioKVMClockCtrl, 0) }

// NMI injects a non-maskable interrupt.
func (c *VCPU) NMI() error {
	if _, err := ioctl(c.fd, ioNMI, 0); err != nil {
		return fail(qverr.Generic, "inject an NMI", err)
	}
	return nil
}
