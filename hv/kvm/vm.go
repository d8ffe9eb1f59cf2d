package kvm

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// VM is one virtual machine of the kernel.
type VM struct {
	sys *System
	fd  int
}

// Close gives up the VM. It is gone once its vCPUs are closed as well.
func (v *VM) Close() error { return unix.Close(v.fd) }

// Flags of MemoryRegion.
const (
	MemLogDirty = 1
	MemReadOnly = 2
)

// MemoryRegion is one slot of guest memory.
type MemoryRegion struct {
	Slot, Flags uint32
	GPA, Size   uint64
	HostAddr    uint64
}

// SetMemory makes, changes or (Size 0) removes a slot.
func (v *VM) SetMemory(r MemoryRegion) error {
	if err := ioctlPtr(v.fd, ioSetMemoryRegion, unsafe.Pointer(&r)); err != nil {
		return fail(v.sys.byVendor(qverr.NPTSetup, qverr.EPTSetup),
			fmt.Sprintf("map %#x bytes of memory at %#x", r.Size, r.GPA), err)
	}
	return nil
}

// SetTSSArea tells KVM the four pages below 4 GiB, of no use to the guest, that
// VMX needs for real mode: three of TSS at addr, one identity map before it.
func (v *VM) SetTSSArea(addr uint64) error {
	identity := addr - 0x1000
	if v.sys.Check(CapSetIdentityMap) != 0 {
		if err := ioctlPtr(v.fd, ioSetIdentityMap, unsafe.Pointer(&identity)); err != nil {
			return fail(qverr.VMCreate, "set the identity map address", err)
		}
	}
	if _, err := ioctl(v.fd, ioSetTSSAddr, uintptr(addr)); err != nil {
		return fail(qverr.VMCreate, "set the TSS address", err)
	}
	return nil
}

// CreateIRQChip makes the PICs, the IOAPIC and a LAPIC in each vCPU to come.
func (v *VM) CreateIRQChip() error {
	if _, err := ioctl(v.fd, ioCreateIRQChip, 0); err != nil {
		return fail(qverr.VMCreate, "create the interrupt controllers", err)
	}
	return nil
}

// WideAPICIDs lets APIC ids have 32 bits: in the APIC state, in MSI routes (bits 8 to
// 31 of the id are bits 40 to 63 of the address), and 255 is one CPU and not all.
func (v *VM) WideAPICIDs() error {
	const use32BitIDs, disableBroadcastQuirk = 1, 2
	return v.enable(CapX2APICAPI, use32BitIDs|disableBroadcastQuirk)
}

// enable is KVM_ENABLE_CAP with one argument.
func (v *VM) enable(capability uint32, arg uint64) error {
	c := enableCap{capability: capability, args: [4]uint64{arg}}
	if err := ioctlPtr(v.fd, ioEnableCap, unsafe.Pointer(&c)); err != nil {
		return fail(qverr.VMCreate, fmt.Sprintf("enable capability %d", capability), err)
	}
	return nil
}

type enableCap struct {
	capability, flags uint32
	args              [4]uint64
	_                 [64]uint8
}

// CreatePIT makes the timer at ports 40 to 43 and, by the speaker dummy flag,
// port 61, whose bit 5 firmware and boot loaders measure time with.
func (v *VM) CreatePIT() error {
	config := struct {
		flags uint32
		_     [15]uint32
	}{flags: 1}
	if err := ioctlPtr(v.fd, ioCreatePIT2, unsafe.Pointer(&config)); err != nil {
		return fail(qverr.VMCreate, "create the PIT", err)
	}
	return nil
}

// SetIRQLine drives an input of the interrupt controllers.
func (v *VM) SetIRQLine(gsi uint32, high bool) error {
	level := struct{ irq, level uint32 }{irq: gsi}
	if high {
		level.level = 1
	}
	if err := ioctlPtr(v.fd, ioIRQLine, unsafe.Pointer(&level)); err != nil {
		return fail(qverr.Generic, fmt.Sprintf("set interrupt line %d", gsi), err)
	}
	return nil
}

// Interrupt controllers of a Route.
const (
	ChipPICMaster = 0
	ChipPICSlave  = 1
	ChipIOAPIC    = 2
)

// Route says where the interrupt GSI goes: to a Pin of a controller, or as the
// message Data to Addr.
type Route struct {
	GSI       uint32
	MSI       bool
	Chip, Pin uint32
	Addr      uint64
	Data      uint32
}

// MaxRoutes is KVM_MAX_IRQ_ROUTES.
const MaxRoutes = 4096

const (
	routeSize  = 48
	routeStart = 8
)

// SetRoutes replaces all interrupt routes.
func (v *VM) SetRoutes(routes []Route) error {
	table := make([]uint32, (routeStart+routeSize*len(routes))/4)
	table[0] = uint32(len(routes))
	for i, r := range routes {
		e := table[(routeStart+i*routeSize)/4:]
		e[0], e[1] = r.GSI, 1
		e[4], e[5] = r.Chip, r.Pin
		if r.MSI {
			e[1], e[4], e[5], e[6] = 2, uint32(r.Addr), uint32(r.Addr>>32), r.Data
		}
	}
	if err := ioctlPtr(v.fd, ioSetGSIRouting, unsafe.Pointer(&table[0])); err != nil {
		return fail(qverr.Generic, fmt.Sprintf("set %d interrupt routes", len(routes)), err)
	}
	return nil
}

// AttachIRQ makes a signal of the eventfd raise gsi.
func (v *VM) AttachIRQ(fd int, gsi uint32) error { return v.irqfd(fd, gsi, 0) }

// DetachIRQ undoes AttachIRQ. A signal under way is delivered before it returns.
func (v *VM) DetachIRQ(fd int, gsi uint32) error { return v.irqfd(fd, gsi, 1) }

func (v *VM) irqfd(fd int, gsi, flags uint32) error {
	arg := struct {
		fd, gsi, flags, resample uint32
		_                        [16]byte
	}{fd: uint32(fd), gsi: gsi, flags: flags}
	if err := ioctlPtr(v.fd, ioIRQFD, unsafe.Pointer(&arg)); err != nil {
		return fail(qverr.Generic, fmt.Sprintf("tie an eventfd to interrupt %d", gsi), err)
	}
	return nil
}

// AttachIOEvent signals the eventfd on a write of size bytes (0: any) to the
// guest physical address addr. DetachIOEvent undoes it.
func (v *VM) AttachIOEvent(addr uint64, size, fd int) error { return v.ioevent(addr, size, fd, 0) }

// DetachIOEvent undoes AttachIOEvent.
func (v *VM) DetachIOEvent(addr uint64, size, fd int) error { return v.ioevent(addr, size, fd, 1<<2) }

func (v *VM) ioevent(addr uint64, size, fd int, flags uint32) error {
	arg := struct {
		match, addr uint64
		size        uint32
		fd          int32
		flags       uint32
		_           [36]byte
	}{addr: addr, size: uint32(size), fd: int32(fd), flags: flags}
	if err := ioctlPtr(v.fd, ioIOEventFD, unsafe.Pointer(&arg)); err != nil {
		return fail(qverr.Generic, fmt.Sprintf("tie an eventfd to address %#x", addr), err)
	}
	return nil
}

// Clock reads the guest's kvmclock in nanoseconds.
func (v *VM) Clock() (uint64, error) {
	var data clockData
	if err := ioctlPtr(v.fd, ioGetClock, unsafe.Pointer(&data)); err != nil {
		return 0, fail(qverr.Generic, "read the clock", err)
	}
	return data.clock, nil
}

// SetClock sets the guest's kvmclock in nanoseconds.
func (v *VM) SetClock(ns uint64) error {
	data := clockData{clock: ns}
	if err := ioctlPtr(v.fd, ioSetClock, unsafe.Pointer(&data)); err != nil {
		return fail(qverr.Generic, "set the clock", err)
	}
	return nil
}

type clockData struct {
	clock           uint64
	flags, _        uint32
	realtime, hostT uint64
	_               [4]uint32
}

// CreateVCPU makes the vCPU with this id, which is also its APIC id. Not all ids
// need be there.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(v.fd, ioCreateVCPU, uintptr(id))
	if err != nil {
		return nil, fail(v.sys.byVendor(qverr.VMCBAlloc, qverr.VMCSAlloc), fmt.Sprintf("create vCPU %d", id), err)
	}
	unix.CloseOnExec(fd)
	area, err := unix.Mmap(fd, 0, v.sys.mmapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fail(v.sys.byVendor(qverr.VMCBAlloc, qverr.VMCSAlloc), fmt.Sprintf("map the area of vCPU %d", id), err)
	}
	return &VCPU{id: id, fd: fd, area: area}, nil
}
