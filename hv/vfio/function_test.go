package vfio_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"quantavirt/hv/memory"
	hvfio "quantavirt/hv/vfio"
	"quantavirt/internal/qverr"
)

// What the guest finds: its own view of the same function.
func TestConfigurationSpace(t *testing.T) {
	r := newRig(t, newHardware())
	for _, c := range []struct {
		name string
		off  int
		want uint32
	}{
		{"identity", 0x00, 0x1572_8086}, {"class", 0x08, 0x02_0000_01}, {"subsystem", 0x2c, 0x0001_8086},
		{"I/O BAR", 0x18, 0}, {"ROM", 0x30, 0}, {"no INTx", 0x3c, 0}, {"first capability", 0x34, 0x40},
		{"power management without PME, in D0", 0x40, 0x0003_5001}, {"PMCSR", 0x44, 0x08},
		{"MSI without masks", 0x50, 0x0084_7005},
		{"MSI-X", 0x70, (vectors-1)<<16 | 0xa0_11}, {"table", 0x74, tableOff}, {"pending bits", 0x78, pbaOff},
		{"integrated endpoint, and no VPD", 0xa0, 0x0092_f010}, {"FLR", 0xa4, 0x1000_8020}, {"no link", 0xac, 0},
		{"VPD", 0xe0, 0}, {"vendor", 0xf0, 0x0108_0009}, {"vendor", 0xf4, 0x0504_0302},
	} {
		if v := r.get(c.off); v != c.want {
			t.Errorf("%s: %#x is %#x, want %#x", c.name, c.off, v, c.want)
		}
	}
	r.hw.cfg[0xf5] = 0x77
	if v := r.get(0xf4); v != 0x0504_7702 {
		t.Errorf("the vendor's capability is not live: %#x", v)
	}
}

// Before the guest or firmware has written anything, memory is decoded and the function
// may not do DMA.
func TestFirst(t *testing.T) {
	hw := newHardware()
	f, err := hvfio.New(hw, hvfio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if hw.command() != 0x2 || hw.resets != 1 {
		t.Errorf("command %#x, %d resets", hw.command(), hw.resets)
	}
}

// The only writes that reach the hardware are bus master, interrupt disable, and reset.
func TestWritesReachLittle(t *testing.T) {
	r := newRig(t, newHardware())
	if r.hw.command() != 0x6 || r.hw.resets != 1 {
		t.Fatalf("at first: command %#x, %d resets", r.hw.command(), r.hw.resets)
	}
	r.set(4, 0)
	if r.hw.command() != 0x2 {
		t.Errorf("memory decoding of the hardware follows the guest: %#x", r.hw.command())
	}
	if len(r.host.mapped) != 0 {
		t.Error("the guest has the BARs mapped while its decoding is off")
	}
	r.set(4, 0xffff_ffff)
	if r.hw.command() != 0x406 {
		t.Errorf("command %#x", r.hw.command())
	}
	for off := 0; off < 256; off += 4 {
		if off != 4 && off != 0xa8 { // command, device control
			r.set(off, 0xffff_ffff)
		}
	}
	if len(r.hw.config) != 1 || r.hw.resets != 1 {
		t.Errorf("written to the hardware: %v, %d resets", r.hw.config, r.hw.resets)
	}
	if r.get(0x44)&3 != 3 {
		t.Error("the guest does not see the power state that it set")
	}
	r.set16(0xa8, 0x8001)
	if r.hw.resets != 2 || r.get(0xa8)&0xffff != 1 {
		t.Errorf("function level reset: %d resets, device control %#x", r.hw.resets, r.get(0xa8))
	}
	if r.hw.command() != 0x406 {
		t.Errorf("command after it: %#x", r.hw.command())
	}
}

func TestBARs(t *testing.T) {
	r := newRig(t, newHardware())
	base := r.base()
	if base < highBase {
		t.Fatalf("BAR 0 is at %#x", base)
	}
	// All but the page of the MSI-X structures.
	if len(r.host.mapped) != 2 || len(r.host.mapped[base]) != 0xe000 || len(r.host.mapped[base+0xf000]) != 0x1000 {
		t.Errorf("mapped: %v", sizes(r.host.mapped))
	}
	r.host.mapped[base][0x10] = 0x5a
	if r.hw.bar0[0x10] != 0x5a {
		t.Error("what is mapped is not the hardware's")
	}
	moved := uint64(highBase + 0x40_0000)
	r.set(0x10, uint32(moved))
	if len(r.host.mapped[moved]) != 0xe000 || len(r.host.mapped) != 2 {
		t.Errorf("after a move: %v", sizes(r.host.mapped))
	}
	// The page that has the table: beside it the hardware, by a system call.
	if !r.bus.WriteMMIO(moved+0xe400, []byte{1, 2, 3, 4}) || !bytes.Equal(r.hw.bar0[0xe400:][:4], []byte{1, 2, 3, 4}) {
		t.Error("a write beside the table is lost")
	}
	// The small BAR has a page, whose rest is empty.
	small := uint64(r.get(0x1c))
	data := make([]byte, 4)
	r.hw.small[0xfc] = 7
	if !r.bus.ReadMMIO(small+0xfc, data) || data[0] != 7 {
		t.Errorf("BAR 3: % x", data)
	}
	if !r.bus.ReadMMIO(small+0x100, data) || data[0] != 0xff {
		t.Errorf("behind BAR 3: % x", data)
	}
	if r.hw.outside != 0 {
		t.Errorf("%d accesses to the table of the hardware", r.hw.outside)
	}
}

func sizes(m map[uint64][]byte) map[uint64]int {
	out := map[uint64]int{}
	for at, mem := range m {
		out[at] = len(mem)
	}
	return out
}

func TestMSIX(t *testing.T) {
	r := newRig(t, newHardware())
	entry := r.base() + tableOff + 16*3
	for i, v := range []uint32{0xfee0_1000, 0, 0x41, 0} {
		r.bus.WriteMMIO(entry+uint64(4*i), binary.LittleEndian.AppendUint32(nil, v))
	}
	if r.hw.msix != nil || r.f.InUse() {
		t.Fatal("on before the guest said so")
	}
	r.set16(0x72, 0x8000)
	if len(r.hw.msix) != vectors || !r.f.InUse() {
		t.Fatalf("vectors of the hardware: %v", r.hw.msix)
	}
	if len(r.host.irqs) != 1 {
		t.Fatalf("delivered: %v, want the one vector that is not masked", r.host.irqs)
	}
	for gsi, fd := range r.host.irqs {
		if int32(fd) != r.hw.msix[3] || r.host.routes[gsi].Addr != 0xfee0_1000 || r.host.routes[gsi].Data != 0x41 {
			t.Errorf("vector 3: descriptor %d of %v, message %+v", fd, r.hw.msix, r.host.routes[gsi])
		}
	}
	signal(t, r.hw.msix[5]) // masked: it is pending
	data := make([]byte, 4)
	r.bus.ReadMMIO(r.base()+pbaOff, data)
	if data[0] != 1<<5 {
		t.Errorf("pending bits % x", data)
	}
	r.set16(0x72, 0)
	if len(r.hw.msix) != 0 || len(r.host.irqs) != 0 || r.f.InUse() {
		t.Errorf("after it was switched off: %v, %v", r.hw.msix, r.host.irqs)
	}
	r.hw.vectors = 5
	r.set16(0x72, 0x8000)
	if len(r.hw.msix) != 4 {
		t.Errorf("with 5 vectors left on the host: %v", r.hw.msix)
	}
	if err := r.bus.Reset(); err != nil {
		t.Fatal(err)
	}
	if len(r.hw.msix) != 0 || r.hw.resets != 2 || r.hw.command() != 0x6 {
		t.Errorf("after a reset of the machine: %v, %d resets, command %#x", r.hw.msix, r.hw.resets, r.hw.command())
	}
}

func TestMSI(t *testing.T) {
	r := newRig(t, newHardware())
	r.set(0x54, 0xfee0_2000)
	r.set(0x58, 0)
	r.set16(0x5c, 0x53)
	r.set16(0x52, 1|1<<4) // two of the four
	if len(r.hw.msi) != 2 || len(r.host.irqs) != 2 {
		t.Fatalf("%v, %v", r.hw.msi, r.host.irqs)
	}
	var got []uint32
	for gsi := range r.host.irqs {
		got = append(got, r.host.routes[gsi].Data)
	}
	if got[0]+got[1] != 0x52+0x53 || got[0] == got[1] {
		t.Errorf("messages %#x: the low bit is the vector", got)
	}
	r.set16(0x52, 0)
	if len(r.hw.msi) != 0 || len(r.host.irqs) != 0 {
		t.Errorf("off: %v, %v", r.hw.msi, r.host.irqs)
	}
}

func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		fd   func(*hardware) int32
		code qverr.Code
	}{
		"error":       {func(h *hardware) int32 { return h.failure }, qverr.IO},
		"wanted back": {func(h *hardware) int32 { return h.request }, qverr.NoDev},
	} {
		r := newRig(t, newHardware())
		signal(t, c.fd(r.hw))
		if err := <-r.failed; !errors.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
		r.f.Close()
		if r.hw.command() != 0x2 || r.hw.resets != 2 || !r.hw.closed {
			t.Errorf("%s: command %#x, %d resets, closed %t", name, r.hw.command(), r.hw.resets, r.hw.closed)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hardware)
		code   qverr.Code
	}{
		"a bridge":             {func(h *hardware) { h.cfg[0xe] = 0x81 }, qverr.Unsupported},
		"a cut capability":     {func(h *hardware) { h.cfg[0xa1], h.cfg[0xf0] = 0xf0, 0x10 }, 0},
		"a list that loops":    {func(h *hardware) { h.cfg[0xf1] = 0x40 }, 0},
		"a table outside":      {func(h *hardware) { h.cfg[0x76] = 1 }, qverr.Inval},
		"a table in no BAR":    {func(h *hardware) { h.cfg[0x74] = 5 }, qverr.Inval},
		"PCI Express, no room": {func(h *hardware) { h.cfg[0xa1], h.cfg[0xb0], h.cfg[0xb1] = 0xb0, 0x09, 0 }, qverr.Unsupported},
	} {
		hw := newHardware()
		c.change(hw)
		f, err := hvfio.New(hw, hvfio.Options{})
		if c.code == 0 && err == nil {
			f.Close()
		}
		if (err == nil) != (c.code == 0) || err != nil && !errors.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
		if !hw.closed {
			t.Errorf("%s: the hardware stays open", name)
		}
	}
}

// Without a reset of its own the function offers none.
func TestNoReset(t *testing.T) {
	hw := newHardware()
	hw.noReset = true
	r := newRig(t, hw)
	r.set16(0xa8, 0x8000)
	if r.get(0xa4)&(1<<28) != 0 || hw.resets != 0 {
		t.Errorf("device capabilities %#x, %d resets", r.get(0xa4), hw.resets)
	}
}

type container struct {
	mapped map[uint64]int
	refuse uint64
}

func (c *container) Map(iova uint64, mem []byte) error {
	if iova == c.refuse && c.refuse != 0 {
		return qverr.New(qverr.NoMem, "no")
	}
	c.mapped[iova] = len(mem)
	return nil
}

func TestMapMemory(t *testing.T) {
	m, err := memory.New(memory.GapStart + 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c := &container{mapped: map[uint64]int{}}
	if err := hvfio.MapMemory(c, m); err != nil || len(c.mapped) != 2 || c.mapped[0] != memory.GapStart || c.mapped[memory.GapEnd] != 8<<20 {
		t.Fatalf("%v, %v", c.mapped, err)
	}
	if err := m.DiscardRange(0, 4096); !errors.Is(err, qverr.Busy) {
		t.Errorf("pinned memory is given back: %v", err)
	}
	if _, err := m.Release(m.Regions()[0].Data[:4096]); !errors.Is(err, qverr.Busy) {
		t.Errorf("pinned memory is released: %v", err)
	}
	c.refuse = memory.GapEnd
	if err := hvfio.MapMemory(c, m); !errors.Is(err, qverr.NoMem) {
		t.Errorf("a refusal: %v", err)
	}
}

// What is pinned stays where it is over a reset of the guest, and is cleared.
func TestPinnedReset(t *testing.T) {
	m, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := hvfio.MapMemory(&container{mapped: map[uint64]int{}}, m); err != nil {
		t.Fatal(err)
	}
	clear(m.Regions()[0].Data)
	m.Regions()[0].Data[5] = 1
	if err := m.Discard(); err != nil || m.Regions()[0].Data[5] != 0 || m.Touched() != 1<<20 {
		t.Errorf("after a reset %d in memory, %d bytes of it there (%v)", m.Regions()[0].Data[5], m.Touched(), err)
	}
}

// FuzzGuest lets a guest write what it likes: nothing but the command register reaches
// the hardware's configuration, nobody touches its MSI-X table, and memory is mapped only
// within the windows, whole and without overlap.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{0x04, 0, 6, 0, 0, 0, 0x72, 0, 0, 0x80, 0, 0})
	f.Add([]byte{0x10, 0, 0xff, 0xff, 0xff, 0xff, 0xa8, 0, 0, 0x80, 0, 0})
	f.Add([]byte{0x00, 0xe0, 0, 0x10, 0xe0, 0xfe, 0x0c, 0xe0, 0, 0, 0, 0, 0x52, 0, 0x31, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		hw := newHardware()
		r := newRig(t, hw)
		base := r.base()
		for ; len(in) >= 6; in = in[6:] {
			off, v := int(binary.LittleEndian.Uint16(in)), in[2:6]
			size := []int{4, 2, 1, 4}[off&3]
			if off >= 0xe000 {
				r.bus.WriteMMIO(base+uint64(off&^3), v)
				r.bus.ReadMMIO(r.base()+uint64(off&^3), make([]byte, size))
				continue
			}
			r.bus.WriteECAM(5<<15|uint64(off&0xff), v[:size])
		}
		for off := range hw.config {
			if off != 4 {
				t.Fatalf("written to the hardware's configuration: %#x", off)
			}
		}
		if hw.command()&^0x406 != 0 || hw.command()&2 == 0 {
			t.Fatalf("command %#x", hw.command())
		}
		if hw.outside != 0 {
			t.Fatal("the MSI-X table of the hardware was touched")
		}
		if r.get(0) != 0x1572_8086 {
			t.Fatal("identity changed")
		}
		for at, mem := range r.host.mapped {
			end := at + uint64(len(mem))
			if (at < lowBase || end > lowEnd) && (at < highBase || end > highBase<<2) {
				t.Fatalf("%#x bytes are mapped at %#x", len(mem), at)
			}
		}
	})
}
