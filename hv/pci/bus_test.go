package pci_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// host records what a machine would tell KVM.
type host struct {
	next   uint32
	routes map[uint32]pci.Message
	irqs   map[uint32]int
	bells  map[string]bool
	mapped map[uint64][]byte
}

func newHost() *host {
	return &host{next: 24, routes: map[uint32]pci.Message{}, irqs: map[uint32]int{}, bells: map[string]bool{}, mapped: map[uint64][]byte{}}
}

func (h *host) AllocGSI() (uint32, error) { h.next++; return h.next - 1, nil }
func (h *host) RouteMSI(gsi uint32, m pci.Message) error {
	h.routes[gsi] = m
	return nil
}
func (h *host) AttachIRQ(gsi uint32, fd int) error {
	if _, ok := h.irqs[gsi]; ok {
		return unix.EBUSY
	}
	h.irqs[gsi] = fd
	return nil
}
func (h *host) DetachIRQ(gsi uint32, fd int) error {
	if h.irqs[gsi] != fd {
		return unix.ENOENT
	}
	delete(h.irqs, gsi)
	return nil
}
func (h *host) AttachDoorbell(addr uint64, size, fd int) error {
	key := fmt.Sprintf("%#x/%d", addr, size)
	if h.bells[key] {
		return unix.EEXIST
	}
	h.bells[key] = true
	return nil
}
func (h *host) DetachDoorbell(addr uint64, size, fd int) error {
	key := fmt.Sprintf("%#x/%d", addr, size)
	if !h.bells[key] {
		return unix.ENOENT
	}
	delete(h.bells, key)
	return nil
}

func (h *host) MapMemory(addr uint64, mem []byte) error {
	for at, m := range h.mapped {
		if addr < at+uint64(len(m)) && at < addr+uint64(len(mem)) {
			return unix.EEXIST
		}
	}
	h.mapped[addr] = mem
	return nil
}
func (h *host) UnmapMemory(addr uint64, mem []byte) error {
	if len(h.mapped[addr]) != len(mem) {
		return unix.ENOENT
	}
	delete(h.mapped, addr)
	return nil
}

// registers is a BAR that remembers.
type registers [0x4000]byte

func (r *registers) ReadBAR(off uint64, data []byte)  { copy(data, r[off:]) }
func (r *registers) WriteBAR(off uint64, data []byte) { copy(r[off:], data) }

const (
	lowBase  = 0xd000_0000
	highBase = 0x1_0000_0000
)

type rig struct {
	t    *testing.T
	host *host
	bus  *pci.Bus
	dev  *pci.Device
	regs registers
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, host: newHost()}
	r.bus = pci.NewBus(r.host, pci.Windows{
		Low: pci.Window{Base: lowBase, End: 0xfec0_0000}, High: pci.Window{Base: highBase, End: highBase << 2},
	}, func(err error) { t.Errorf("fault: %v", err) })
	r.dev = pci.NewDevice("test", pci.Identity{Vendor: 0x1af4, Device: 0x1042, SubsystemVendor: 0x1af4, SubsystemID: 0x42, Class: 0x018000, Revision: 1})
	r.check(r.dev.AddBAR(0, pci.BAR{Size: 0x1000, Handler: &r.regs}))
	r.check(r.dev.AddBAR(4, pci.BAR{Size: 0x4000, Is64: true, Prefetch: true, Handler: &r.regs}))
	_, err := r.dev.AddMSIX(4, 3, 0x1000, 0x1800)
	r.check(err)
	r.check(r.dev.AddDoorbell(4, 0x3004, 2, 77))
	r.check(r.bus.Add(5, r.dev))
	r.check(r.bus.Place())
	t.Cleanup(r.bus.Close)
	return r
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// cf8 does what pci_conf1_read and pci_conf1_write do.
func (r *rig) cf8(off int, n int) uint32 {
	r.address(off)
	data := make([]byte, 4)
	r.bus.ReadPort(uint16(0xcfc+off&3), data[:n])
	return binary.LittleEndian.Uint32(data)
}

func (r *rig) address(off int) {
	r.bus.WritePort(0xcf8, binary.LittleEndian.AppendUint32(nil, 1<<31|5<<11|uint32(off&^3)))
}

func (r *rig) set(off int, v uint32) {
	r.bus.WriteECAM(5<<15|uint64(off), binary.LittleEndian.AppendUint32(nil, v))
}

func (r *rig) get(off int) uint32 {
	data := make([]byte, 4)
	r.bus.ReadECAM(5<<15|uint64(off), data)
	return binary.LittleEndian.Uint32(data)
}

func TestIdentityBothWays(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		off, n int
		want   uint32
	}{
		{0, 4, 0x10421af4}, {2, 2, 0x1042}, {8, 4, 0x01800001}, {0xb, 1, 0x01}, {0x2c, 4, 0x00421af4}, {0x3d, 1, 0},
	} {
		if v := r.cf8(c.off, c.n); v != c.want {
			t.Errorf("CF8 %#x/%d: %#x, want %#x", c.off, c.n, v, c.want)
		}
	}
	if r.get(0) != 0x10421af4 || r.get(0x2c) != 0x00421af4 {
		t.Error("ECAM disagrees")
	}
	data := make([]byte, 4)
	r.bus.ReadECAM(6<<15, data)
	if !bytes.Equal(data, []byte{255, 255, 255, 255}) {
		t.Errorf("an empty slot reads % x", data)
	}
	r.bus.ReadECAM(5<<15|1<<12, data)
	if data[0] != 255 {
		t.Error("function 1 answers")
	}
	r.bus.ReadECAM(5<<15|0x100, data)
	if data[0] != 255 {
		t.Error("there is extended configuration space")
	}
}

func TestAddressRegister(t *testing.T) {
	r := newRig(t)
	r.bus.WritePort(0xcf8, []byte{0, 0, 0, 0x80})
	r.bus.WritePort(0xcf9, []byte{6})
	r.bus.WritePort(0xcf8, []byte{0x12})
	data := make([]byte, 4)
	r.bus.ReadPort(0xcf8, data)
	if !bytes.Equal(data, []byte{0, 0, 0, 0x80}) {
		t.Fatalf("CF8 is % x", data)
	}
	r.bus.WritePort(0xcf8, []byte{0, 0, 0, 0})
	r.bus.ReadPort(0xcfc, data)
	if data[0] != 255 {
		t.Fatal("CFC answers while disabled")
	}
}

func TestWriteMasks(t *testing.T) {
	r := newRig(t)
	before := r.get(0)
	r.set(0, 0)
	r.set(8, 0)
	r.set(0x2c, 0)
	r.set(0x34, 0xffff_ffff)
	if r.get(0) != before || r.get(8) != 0x01800001 || r.get(0x2c) != 0x00421af4 || r.get(0x34)&^0xff != 0 {
		t.Error("read-only registers changed")
	}
	r.set(4, 0xffff_ffff)
	if v := r.get(4); v&0xffff != 0x406 || v>>16 != 0x10 {
		t.Errorf("command and status %#x", v)
	}
	r.set(0x30, 0xffff_ffff)
	if v := r.get(0x30); v != 0 {
		t.Errorf("expansion ROM %#x", v)
	}
}

func TestBARSizing(t *testing.T) {
	r := newRig(t)
	old0, old4, old5 := r.get(0x10), r.get(0x20), r.get(0x24)
	for _, off := range []int{0x10, 0x14, 0x20, 0x24} {
		r.set(off, 0xffff_ffff)
	}
	if v := r.get(0x10); v != 0xffff_f000 {
		t.Errorf("BAR 0: %#x", v)
	}
	if v := r.get(0x14); v != 0 {
		t.Errorf("BAR 1: %#x", v)
	}
	if lo, hi := r.get(0x20), r.get(0x24); lo != 0xffff_c00c || hi != 0xffff_ffff {
		t.Errorf("BAR 4: %#x %#x", hi, lo)
	}
	if len(r.host.bells) != 0 {
		t.Errorf("doorbell of a BAR out of the windows: %v", r.host.bells)
	}
	r.set(0x10, old0)
	r.set(0x20, old4)
	r.set(0x24, old5)
	if old0 != lowBase || old4 != 0xc || old5 != 1 {
		t.Errorf("placed at %#x %#x %#x", old0, old4, old5)
	}
	if !r.host.bells["0x100003004/2"] {
		t.Errorf("doorbells: %v", r.host.bells)
	}
}

func TestMoveAndDecode(t *testing.T) {
	r := newRig(t)
	r.regs[0x10] = 0xab
	data := make([]byte, 1)
	if !r.bus.ReadMMIO(lowBase+0x10, data) || data[0] != 0xab {
		t.Fatal("BAR 0 does not answer")
	}
	r.set(0x10, lowBase+0x5000)
	if r.bus.ReadMMIO(lowBase+0x10, data) {
		t.Error("it still answers at its old place")
	}
	if !r.bus.ReadMMIO(lowBase+0x5010, data) || data[0] != 0xab {
		t.Error("it does not answer at its new place")
	}
	r.set(0x20, 0x10_0000)
	if got := slices.Collect(maps.Keys(r.host.bells)); len(got) != 1 || got[0] != "0x100103004/2" {
		t.Errorf("doorbells %v", got)
	}
	r.set(4, 4) // memory decoding off
	if r.bus.ReadMMIO(lowBase+0x5010, data) || len(r.host.bells) != 0 {
		t.Error("it answers while decoding is off")
	}
	r.set(4, 6)
	for _, addr := range []uint32{0, 0xfec0_0000, 0xfee0_0000, 0xc000_0000} {
		r.set(0x10, addr)
		if r.bus.ReadMMIO(uint64(addr), data) {
			t.Errorf("a BAR hides what is at %#x", addr)
		}
	}
	r.check(r.bus.Reset())
	if r.get(0x10) != lowBase || !r.bus.WriteMMIO(lowBase, []byte{1}) {
		t.Error("reset does not bring the BAR back")
	}
}

func TestAccessAcrossTheEnd(t *testing.T) {
	r := newRig(t)
	data := make([]byte, 8)
	if !r.bus.ReadMMIO(lowBase+0xffc, data) || data[0] != 255 {
		t.Errorf("% x", data)
	}
	r.bus.WriteMMIO(lowBase+0xffc, make([]byte, 8))
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	d := pci.NewDevice("bad", pci.Identity{})
	r.check(d.AddBAR(0, pci.BAR{Size: 0x1000, Is64: true}))
	for name, err := range map[string]error{
		"half of a 64-bit BAR": d.AddBAR(1, pci.BAR{Size: 0x1000}),
		"64-bit BAR 5":         d.AddBAR(5, pci.BAR{Size: 0x1000, Is64: true}),
		"odd size":             d.AddBAR(2, pci.BAR{Size: 0x1800}),
		"tiny":                 d.AddBAR(2, pci.BAR{Size: 0x100}),
		"doorbell outside":     d.AddDoorbell(0, 0x1000, 2, 1),
		"doorbell, no BAR":     d.AddDoorbell(3, 0, 2, 1),
	} {
		if !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.AddMSIX(0, 64, 0x800, 0xb00); !errors.Is(err, qverr.Inval) {
		t.Errorf("overlapping table: %v", err)
	}
	if _, err := d.AddCapability(9, make([]byte, 250), nil, nil); !errors.Is(err, qverr.Inval) {
		t.Errorf("large capability: %v", err)
	}
	if err := r.bus.Add(5, d); !errors.Is(err, qverr.Exist) {
		t.Errorf("taken slot: %v", err)
	}
	if err := r.bus.Add(0, d); !errors.Is(err, qverr.Inval) {
		t.Errorf("slot 0: %v", err)
	}
	for {
		if err := r.bus.Add(-1, pci.NewDevice("x", pci.Identity{})); err != nil {
			if !errors.Is(err, qverr.Limit) {
				t.Errorf("full bus: %v", err)
			}
			break
		}
	}
}

// FuzzConfig writes anywhere and checks that what is read-only stays, and that
// the decoder keeps to its windows.
func FuzzConfig(f *testing.F) {
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0xff, 0x04, 6, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t)
		for len(in) >= 5 {
			r.bus.WritePort(0xcf8, []byte{in[0], 5 << 3, 0, 0x80})
			r.bus.WritePort(0xcfc+uint16(in[0]&3), in[1:1+4-in[0]&3])
			in = in[5:]
		}
		if r.get(0) != 0x10421af4 || r.get(8) != 0x01800001 {
			t.Fatal("identity changed")
		}
		data := make([]byte, 4)
		for _, addr := range []uint64{0, 0x100000, 0xc0000000, 0xfec00000, 0xfee00000} {
			if r.bus.ReadMMIO(addr, data) {
				t.Fatalf("a BAR at %#x", addr)
			}
		}
	})
}
