package pci_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/pci"
)

const (
	tableAt   = highBase + 0x1000
	pendingAt = highBase + 0x1800
	msixCap   = 0x40
)

func (r *rig) write32(addr uint64, v uint32) {
	r.t.Helper()
	if !r.bus.WriteMMIO(addr, binary.LittleEndian.AppendUint32(nil, v)) {
		r.t.Fatalf("nothing at %#x", addr)
	}
}

func (r *rig) read32(addr uint64) uint32 {
	data := make([]byte, 4)
	r.bus.ReadMMIO(addr, data)
	return binary.LittleEndian.Uint32(data)
}

func (r *rig) control(v uint16) { r.set(msixCap, uint32(v)<<16) }

func (r *rig) vector(n int, addr uint64, data, mask uint32) {
	at := uint64(tableAt + 16*n)
	r.write32(at, uint32(addr))
	r.write32(at+4, uint32(addr>>32))
	r.write32(at+8, data)
	r.write32(at+12, mask)
}

// signalled takes the count of vector n's eventfd.
func (r *rig) signalled(n int) bool {
	var count [8]byte
	_, err := unix.Read(r.dev.MSIX().EventFD(n), count[:])
	return err == nil
}

const (
	enable   = 1 << 15
	funcMask = 1 << 14
)

func TestMSIXCapability(t *testing.T) {
	r := newRig(t)
	if v := r.get(0x34); v != msixCap {
		t.Fatalf("capability pointer %#x", v)
	}
	r.set(msixCap+4, 0)
	r.set(msixCap+8, 0)
	if a, b, c := r.get(msixCap), r.get(msixCap+4), r.get(msixCap+8); a != 2<<16|0x11 || b != 0x1004 || c != 0x1804 {
		t.Fatalf("%#x %#x %#x", a, b, c)
	}
	r.control(0xffff)
	if v := r.get(msixCap) >> 16; v != enable|funcMask|2 {
		t.Fatalf("control %#x", v)
	}
}

func TestDelivery(t *testing.T) {
	r := newRig(t)
	m := r.dev.MSIX()
	m.Notify(0)
	if r.signalled(0) {
		t.Fatal("a notification while MSI-X is off")
	}
	r.control(enable | funcMask)
	r.vector(0, 0xfee01000, 0x4041, 0)
	r.vector(1, 0xfee02000, 0x4042, 0)
	if len(r.host.irqs) != 0 {
		t.Fatalf("attached while the function is masked: %v", r.host.irqs)
	}
	r.control(enable)
	if len(r.host.irqs) != 2 || r.host.irqs[24] != m.EventFD(0) || r.host.routes[25] != (pci.Message{Addr: 0xfee02000, Data: 0x4042}) {
		t.Fatalf("%v %v", r.host.irqs, r.host.routes)
	}
	m.Notify(1)
	if !r.signalled(1) || r.signalled(0) {
		t.Fatal("the wrong vector")
	}
	m.Notify(3)
	m.Notify(-1)
	if m.EventFD(3) != -1 || m.EventFD(-1) != -1 {
		t.Fatal("vectors that do not exist have eventfds")
	}
	r.write32(tableAt+8, 0x4099) // migrated to another CPU without masking
	if r.host.routes[24].Data != 0x4099 {
		t.Fatal("the route does not follow")
	}
}

func TestMaskedVectorsPend(t *testing.T) {
	r := newRig(t)
	m := r.dev.MSIX()
	r.control(enable)
	r.vector(2, 0xfee00000, 1, 0)
	r.write32(tableAt+2*16+12, 1)
	if len(r.host.irqs) != 0 {
		t.Fatal("attached while masked")
	}
	if r.read32(pendingAt) != 0 {
		t.Fatal("pending before anything happened")
	}
	m.Notify(2)
	if v := r.read32(pendingAt); v != 1<<2 {
		t.Fatalf("pending bits %#x", v)
	}
	r.write32(tableAt+2*16+12, 0)
	// The count is still there, so KVM delivers as soon as it is attached.
	if r.host.irqs[26] != m.EventFD(2) || !r.signalled(2) {
		t.Fatal("what was pending is lost")
	}
	m.Notify(2) // attached: KVM takes it, nothing is pending
	if v := r.read32(pendingAt); v != 0 {
		t.Fatalf("pending bits %#x", v)
	}
}

func TestOffForgetsAndReset(t *testing.T) {
	r := newRig(t)
	m := r.dev.MSIX()
	one := [8]byte{1}
	unix.Write(m.EventFD(0), one[:]) // vhost, while MSI-X is off
	r.control(enable)
	if r.signalled(0) {
		t.Fatal("switching on delivers what came before")
	}
	r.vector(0, 0xfee00000, 1, 0)
	m.Notify(0)
	calls := 0
	r.dev.OnReset(func() { calls++ })
	r.check(r.bus.Reset())
	if calls != 1 || len(r.host.irqs) != 0 || m.Enabled() || r.signalled(0) || r.read32(tableAt+12) != 1 || r.read32(tableAt) != 0 {
		t.Fatal("reset leaves state behind")
	}
}

func TestTableAccess(t *testing.T) {
	r := newRig(t)
	r.bus.WriteMMIO(tableAt, binary.LittleEndian.AppendUint64(nil, 0x1_fee0_1003))
	var data [8]byte
	r.bus.ReadMMIO(tableAt, data[:])
	if v := binary.LittleEndian.Uint64(data[:]); v != 0x1_fee0_1000 {
		t.Fatalf("%#x", v)
	}
	r.bus.ReadMMIO(tableAt+2, data[:2])
	if data[0] != 255 || data[1] != 255 {
		t.Fatal("a 16-bit read is answered")
	}
	r.bus.WriteMMIO(tableAt+1, []byte{1})
	r.write32(pendingAt, 0xffff_ffff)
	if r.read32(tableAt) != 0xfee0_1000 || r.read32(pendingAt) != 0 {
		t.Fatal("odd writes changed something")
	}
	r.regs[0x1000], r.regs[0x1800] = 1, 1
	if r.read32(tableAt) == 1 {
		t.Fatal("the BAR's handler saw the table")
	}
}
