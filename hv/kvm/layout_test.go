package kvm

import (
	"testing"
	"unsafe"
)

// The argument size is part of an ioctl's number (bits 16 to 29): a struct that
// has another size would let the kernel write beyond it.
func TestArgumentSizes(t *testing.T) {
	for _, c := range []struct {
		name   string
		number uintptr
		size   uintptr
	}{
		{"memory region", ioSetMemoryRegion, unsafe.Sizeof(MemoryRegion{})},
		{"regs", ioGetRegs, unsafe.Sizeof(Regs{})},
		{"set regs", ioSetRegs, unsafe.Sizeof(Regs{})},
		{"sregs", ioGetSregs, unsafe.Sizeof(Sregs{})},
		{"set sregs", ioSetSregs, unsafe.Sizeof(Sregs{})},
		{"lapic", ioGetLAPIC, unsafe.Sizeof(LAPIC{})},
		{"set lapic", ioSetLAPIC, unsafe.Sizeof(LAPIC{})},
		{"clock", ioGetClock, unsafe.Sizeof(clockData{})},
		{"enable capability", ioEnableCap, unsafe.Sizeof(enableCap{})},
		{"set clock", ioSetClock, unsafe.Sizeof(clockData{})},
		{"cpuid header", ioSetCPUID2, unsafe.Offsetof(cpuid2{}.entries)},
		{"pre-fault memory", ioPreFaultMemory, unsafe.Sizeof(preFault{})},
		{"msr header", ioSetMSRs, unsafe.Offsetof(msrList{}.entries)},
	} {
		if got := c.number >> 16 & 0x3fff; got != c.size {
			t.Errorf("%s: the ioctl has %d bytes, the struct %d", c.name, got, c.size)
		}
	}
	if n := unsafe.Sizeof(CPUIDEntry{}); n != 40 {
		t.Errorf("CPUID entry: %d bytes", n)
	}
	if n := unsafe.Sizeof(MSR{}); n != 16 {
		t.Errorf("MSR: %d bytes", n)
	}
}

func TestRunArea(t *testing.T) {
	c := &VCPU{area: make([]byte, 12288)}
	c.SetImmediateExit(true)
	if c.area[0] != 0 || c.area[1] != 1 || c.area[2] != 0 {
		t.Fatalf("immediate_exit: % x", c.area[:4])
	}
	c.SetImmediateExit(false)
	if c.area[1] != 0 {
		t.Fatal("immediate_exit stays")
	}
	copy(c.area[32:], []byte{1, 2, 0xf8, 3, 3, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0})
	io := c.IO()
	if !io.Write || io.Size != 2 || io.Port != 0x3f8 || len(io.Data) != 6 {
		t.Fatalf("%+v", io)
	}
	io.Data[0] = 0xaa
	if c.area[0x1000] != 0xaa {
		t.Fatal("the data is elsewhere")
	}
	copy(c.area[32:], []byte{0, 0, 0, 0xfe, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 0, 0, 1})
	m := c.MMIO()
	if !m.Write || m.Addr != 0x1fe000000 || len(m.Data) != 4 || m.Data[0] != 1 {
		t.Fatalf("%+v", m)
	}
}
