package machine

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/fwcfg"
	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

// tinyROM is a firmware of 64 KiB in real mode. At each start it prints
//
//	A  from its image below 4 GiB, after it tried to write there
//	A  from the copy below 1 MiB
//	X  from there again, after it wrote that
//	Q  the first byte of fw_cfg's signature
//
// and writes a line to the debug port. The first time it then resets the machine, by
// CMOS RAM it knows the second time and powers off.
func tinyROM() []byte {
	rom := bytes.Repeat([]byte{0xf4}, romUnit)
	put := func(at int, code string) { copy(rom[at:], code) }
	const (
		writeCS = "\x2e\xc6\x06\x00\x10"                     // mov byte %cs:0x1000, …
		printCS = "\x2e\xa0\x00\x10\xba\xf8\x03\xee"         // mov %cs:0x1000, %al; out to 3f8
		select0 = "\xba\x10\x05\x31\xc0\xef"                 // outw 0, 510
		printQ  = "\xba\x11\x05\xec\xba\xf8\x03\xee"         // inb 511; out to 3f8
		log     = "\xba\x02\x04\xb0L\xee\xb0O\xee\xb0\n\xee" // "LO" to 402
		count   = "\xb0\x40\xe6\x70\xe4\x71\xfe\xc0\xe6\x71" // one more in CMOS byte 40
		again   = "\x3c\x02\x74\x07\xb0\x06\xba\xf9\x0c\xee\xf4"
		off     = "\xba\x04\x06\xb8\x00\x34\xef\xf4"
	)
	rom[0x1000] = 'A'
	put(0xfff0, "\xe9\x0d\xd0") // jmp 0xd000, still in the image below 4 GiB
	put(0xd000, writeCS+"W"+printCS+"\xea\x00\xe0\x00\xf0")
	put(0xe000, printCS+writeCS+"X"+printCS+select0+printQ+log+count+again+off)
	return rom
}

// The guest starts in the image, cannot change it, and finds a fresh copy of it after
// a reset.
func TestFirmwareReset(t *testing.T) {
	var log, out output
	m, err := New(Options{CPUs: 2, Memory: 16 << 20, KVM: realKVM(t), Firmware: &Firmware{Image: tempFile(t, tinyROM())},
		Serial: &out, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	start(t, m)
	wait(t, m, PoweredOff)
	if out.String() != "AAXQAAXQ" {
		t.Errorf("%q", out.String())
	}
	if s := m.Stats(); s.Resets != 1 {
		t.Errorf("%d resets", s.Resets)
	}
	if n := strings.Count(log.String(), "firmware: LO"); n != 2 {
		t.Errorf("%d lines of the firmware in the log: %s", n, log.String())
	}
}

func TestFirmwareImage(t *testing.T) {
	for size, want := range map[int]error{0: qverr.Inval, romUnit - 1: qverr.Inval, romUnit + 1: qverr.Inval, romUnit: nil, romMax: nil, romMax + romUnit: qverr.Inval} {
		rom, err := mapROM(tempFile(t, bytes.Repeat([]byte{7}, size)))
		if want == nil && (err != nil || len(rom) != size || rom[size-1] != 7) || want != nil && !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err == nil {
			(&firmware{rom: rom}).close()
		}
	}
}

func TestRAMMap(t *testing.T) {
	mem, err := memory.New(memory.GapStart + 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	list := (&Machine{mem: mem}).ramMap()
	want := []mapEntry{{0, memory.GapStart, typeRAM}, {ecamBase, ecamSize, typeReserved}, {memory.GapEnd, 1 << 30, typeRAM}}
	if len(list) != len(want) {
		t.Fatalf("%+v", list)
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("%+v, want %+v", list[i], want[i])
		}
	}
	if b := e820(list); len(b) != len(list)*e820Size || b[e820Size-4] != typeRAM {
		t.Errorf("% x", b)
	}
}

// A guest that prints without end gets what its rate allows, and no line is longer
// than it may be.
func TestDebugConsole(t *testing.T) {
	var log output
	c := newDebugConsole(slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Now()
	c.now = func() time.Time { return now }
	c.since = now
	print := func(s string) {
		for _, b := range []byte(s) {
			c.writePort(0, []byte{b})
		}
	}
	lines := func() int { return strings.Count(log.String(), "firmware: ") }
	print(strings.Repeat("x", 10*debugLineMax) + "\n\n\x1b[2J\n")
	if n := strings.Count(log.String(), "x"); n != debugLineMax || lines() != 2 || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d characters of %d lines", n, lines())
	}
	print(strings.Repeat("line\n", 2*debugBurst))
	if lines() != debugBurst {
		t.Errorf("%d lines at once, want %d", lines(), debugBurst)
	}
	now = now.Add(2 * debugPause)
	print(strings.Repeat("late\n", 5))
	if lines() != debugBurst+2 || !strings.Contains(log.String(), "dropped_lines=258") {
		t.Errorf("%d lines later, want %d: %s", lines(), debugBurst+2, log.String()[len(log.String())-200:])
	}
	now = now.Add(1000 * time.Hour)
	print(strings.Repeat("much later\n", 2*debugBurst))
	if lines() != 2*debugBurst+2 {
		t.Errorf("%d lines much later", lines())
	}
	var b [2]byte
	c.readPort(0, b[:])
	if b != [2]byte{debugPresent, 0xff} {
		t.Errorf("reads % x", b)
	}
}

// What the ports do to fw_cfg is tested there; here, that they lead to it.
func TestFirmwarePorts(t *testing.T) {
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	m := &Machine{mem: mem, firmware: &firmware{cfg: fwcfg.New(mem), console: newDebugConsole(slog.New(slog.DiscardHandler))}}
	ports := m.portMap()
	for i := 1; i < len(ports); i++ {
		if ports[i-1].first+ports[i-1].count > ports[i].first {
			t.Errorf("ports %#x and %#x are on each other", ports[i-1].first, ports[i].first)
		}
	}
	if n := len(ports) - len((&Machine{}).portMap()); n != 2 {
		t.Errorf("%d ranges of ports belong to firmware", n)
	}
}
