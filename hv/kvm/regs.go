package kvm

import (
	"unsafe"

	"quantavirt/internal/qverr"
)

// Regs are the general registers, struct kvm_regs.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// Segment is a segment register with its hidden part, struct kvm_segment.
type Segment struct {
	Base                            uint64
	Limit                           uint32
	Selector                        uint16
	Type, Present, DPL, DB, S, L, G uint8
	AVL, Unusable, _                uint8
}

// Table is GDTR or IDTR, struct kvm_dtable.
type Table struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs are the system registers, struct kvm_sregs.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                Table
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER, APICBase          uint64
	InterruptBitmap         [4]uint64
}

// Regs reads the general registers.
func (c *VCPU) Regs() (r Regs, err error) {
	if err := ioctlPtr(c.fd, ioGetRegs, unsafe.Pointer(&r)); err != nil {
		return r, fail(qverr.Generic, "read the registers", err)
	}
	return r, nil
}

// SetRegs writes the general registers.
func (c *VCPU) SetRegs(r Regs) error {
	if err := ioctlPtr(c.fd, ioSetRegs, unsafe.Pointer(&r)); err != nil {
		return fail(qverr.Generic, "set the registers", err)
	}
	return nil
}

// Sregs reads the system registers.
func (c *VCPU) Sregs() (s Sregs, err error) {
	if err := ioctlPtr(c.fd, ioGetSregs, unsafe.Pointer(&s)); err != nil {
		return s, fail(qverr.Generic, "read the system registers", err)
	}
	return s, nil
}

// SetSregs writes the system registers.
func (c *VCPU) SetSregs(s Sregs) error {
	if err := ioctlPtr(c.fd, ioSetSregs, unsafe.Pointer(&s)); err != nil {
		return fail(qverr.Generic, "set the system registers", err)
	}
	return nil
}
