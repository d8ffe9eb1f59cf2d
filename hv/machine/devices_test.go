package machine

import (
	"bytes"
	"testing"
	"time"

	"quantavirt/hv/kvm"
	"quantavirt/hv/pci"
	"quantavirt/hv/serial"
)

// board is a machine without KVM that serves ports and MMIO.
func board(t *testing.T) (m *Machine, out *bytes.Buffer, sci *bool) {
	t.Helper()
	m, out, sci = &Machine{}, &bytes.Buffer{}, new(bool)
	m.uart = serial.New(out, func(bool) {})
	m.pm = newPowerManagement(func(high bool) { *sci = high })
	m.rtc = newClockChip()
	m.rtc.now = func() time.Time { return time.Date(2026, 11, 24, 13, 5, 59, 0, time.UTC) }
	m.bus = pci.NewBus(nil, pci.Windows{}, nil)
	m.ports = m.portMap()
	return m, out, sci
}

func (m *Machine) out(port uint16, size int, data ...byte) eventKind {
	return m.portAccess(kvm.IO{Write: true, Port: port, Size: size, Data: data}).kind
}

func (m *Machine) in(port uint16, size int) []byte {
	data := make([]byte, size)
	m.portAccess(kvm.IO{Port: port, Size: size, Data: data})
	return data
}

func TestPortMapIsSorted(t *testing.T) {
	m, _, _ := board(t)
	for i := 1; i < len(m.ports); i++ {
		if a, b := m.ports[i-1], m.ports[i]; a.first+a.count > b.first {
			t.Errorf("%#x and %#x", a.first, b.first)
		}
	}
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name string
		port uint16
		data []byte
		want eventKind
	}{
		{"cf9 hard reset", 0xcf9, []byte{6}, eventReset},
		{"cf9 prepare", 0xcf9, []byte{2}, 0},
		{"cf8 as double word", 0xcf8, []byte{0, 6, 0, 0x80}, 0},
		{"i8042 pulse", 0x64, []byte{0xfe}, eventReset},
		{"i8042 other", 0x64, []byte{0xd1}, 0},
		{"port 92 A20", 0x92, []byte{2}, 0},
		{"port 92 reset", 0x92, []byte{3}, eventReset},
		{"S5", 0x604, []byte{0x00, 0x34}, eventPowerOff},
		{"S1", 0x604, []byte{0x00, 0x24}, 0},
		{"S5 without SLP_EN", 0x604, []byte{0x00, 0x14}, 0},
		{"nobody", 0x1234, []byte{1}, 0},
	} {
		m, _, _ := board(t)
		if got := m.out(c.port, len(c.data), c.data...); got != c.want {
			t.Errorf("%s: %d", c.name, got)
		}
	}
}

func TestUnclaimedReads(t *testing.T) {
	m, _, _ := board(t)
	for _, port := range []uint16{0, 0x60, 0x64, 0x80, 0x2f8, 0x402, 0x510, 0x60c, 0xd00, 0xffff} {
		if b := m.in(port, 1); b[0] != 0xff {
			t.Errorf("port %#x reads %#x", port, b[0])
		}
	}
	if b := m.in(0x92, 1); b[0] != 2 {
		t.Errorf("port 92 reads %#x", b[0])
	}
	data := []byte{0, 0, 0, 0}
	m.memoryAccess(kvm.MMIO{Addr: 0xfed0_0000, Data: data})
	if !bytes.Equal(data, []byte{255, 255, 255, 255}) {
		t.Errorf("MMIO reads % x", data)
	}
	m.memoryAccess(kvm.MMIO{Addr: ecamBase, Data: data})
	if !bytes.Equal(data, []byte{0x36, 0x1b, 0x08, 0}) {
		t.Errorf("host bridge % x", data)
	}
	m.memoryAccess(kvm.MMIO{Addr: ecamBase + ecamSize - 2, Data: data})
	m.memoryAccess(kvm.MMIO{Write: true, Addr: ecamBase + ecamSize - 2, Data: data})
}

func TestStringOutput(t *testing.T) {
	m, out, _ := board(t)
	m.out(0x3f8, 1, []byte("rep outsb")...)
	if out.String() != "rep outsb" {
		t.Errorf("%q", out.String())
	}
	m.out(0x3ff, 2, 0x5a, 0xff) // the second byte is no register any more
	if b := m.in(0x3ff, 2); b[0] != 0x5a || b[1] != 0xff {
		t.Errorf("% x", b)
	}
}

func TestPowerButton(t *testing.T) {
	m, _, sci := board(t)
	m.pm.pressPowerButton()
	if *sci {
		t.Error("SCI while not enabled")
	}
	m.out(0x602, 2, 0x20, 0x01)
	if !*sci {
		t.Error("no SCI")
	}
	if b := m.in(0x600, 2); b[1] != 1 {
		t.Errorf("status % x", b)
	}
	m.out(0x600, 2, 0, 1)
	if *sci || m.in(0x601, 1)[0] != 0 {
		t.Error("writing one does not clear it")
	}
	if b := m.in(0x604, 2); b[0]&1 == 0 {
		t.Error("ACPI mode is off")
	}
	m.pm.pressPowerButton()
	m.pm.reset()
	if *sci || m.in(0x602, 2)[1] != 0 {
		t.Error("reset keeps state")
	}
}

func TestPMTimer(t *testing.T) {
	m, _, _ := board(t)
	m.pm.start = time.Now().Add(-time.Hour)
	b := m.in(0x608, 4)
	v := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
	const want = uint64(3600*pmTimerHz) & 0xffff_ffff
	if d := v - want; d > 60*pmTimerHz {
		t.Errorf("%d ticks, want %d", v, want)
	}
}

func TestClockChip(t *testing.T) {
	m, _, _ := board(t)
	read := func(reg byte) byte { m.out(0x70, 1, reg); return m.in(0x71, 1)[0] }
	for reg, want := range map[byte]byte{0: 0x59, 2: 0x05, 4: 0x13, 6: 0x03, 7: 0x24, 8: 0x11, 9: 0x26, 0x32: 0x20, 0x0a: 0x26, 0x0d: 0x80, 0x5f: 0} {
		if v := read(reg); v != want {
			t.Errorf("register %#x: %#x, want %#x", reg, v, want)
		}
	}
	m.out(0x70, 1, 0x8f) // with the NMI bit
	m.out(0x71, 1, 0x0a)
	if v := read(0x0f); v != 0x0a {
		t.Errorf("RAM: %#x", v)
	}
	m.out(0x70, 1, 0x0b)
	m.out(0x71, 1, 0xf4) // binary, 12 hours, interrupts refused
	if b, h, min := read(0x0b), read(4), read(0); b != 4 || h != 0x81 || min != 59 {
		t.Errorf("%#x %#x %d", b, h, min)
	}
}
