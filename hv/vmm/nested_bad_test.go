package vmm_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/vmm"
	"quantavirt/internal/flat"
	"quantavirt/internal/qverr"
)

const (
	consoleSlot, rngSlot = 1, 2
	queueSize            = 64
	ringAt               = 0x20_0000 // of the queue of a bad driver
	otherRing            = 0x21_0000
	tableAt              = 0x22_0000 // of indirect descriptors
	bufferAt             = 0x40_0000
	bufferSize           = 8 << 20
)

// badDrivers break the queue of the entropy device, each in its own way.
var badDrivers = []struct {
	name string
	do   func(d *flat.Device)
}{
	{"descriptor that is its own successor", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 64, flat.DescWrite|flat.DescNext, 0).Add(0).Kick()
	}},
	{"loop of two descriptors", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 64, flat.DescWrite|flat.DescNext, 1).
			Descriptor(ringAt, 1, bufferAt, 64, flat.DescWrite|flat.DescNext, 0).Add(0).Kick()
	}},
	{"buffer outside of memory", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, 1<<52, 64, flat.DescWrite, 0).Add(0).Kick()
	}},
	{"buffer over the end of memory", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, flatMemory-32, 64, flat.DescWrite, 0).Add(0).Kick()
	}},
	{"buffer over the end of the address space", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, ^uint64(15), 64, flat.DescWrite, 0).Add(0).Kick()
	}},
	{"buffer in the PCI hole", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, uint64(d.BAR(0)), 64, flat.DescWrite, 0).Add(0).Kick()
	}},
	{"giant length", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 0xffff_ffff, flat.DescWrite, 0).Add(0).Kick()
	}},
	{"successor that does not exist", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 64, flat.DescWrite|flat.DescNext, queueSize).Add(0).Kick()
	}},
	{"head that does not exist", func(d *flat.Device) { d.Start(ringAt).Add(queueSize).Kick() }},
	{"index that jumps", func(d *flat.Device) { d.Start(ringAt).SetIndex(0x8000).Kick() }},
	{"index one too far", func(d *flat.Device) { d.Start(ringAt).SetIndex(queueSize + 1).Kick() }},
	{"readable after writable", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 64, flat.DescWrite|flat.DescNext, 1).Descriptor(ringAt, 1, bufferAt, 64, 0, 0).Add(0).Kick()
	}},
	{"indirect table of an odd size", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, tableAt, 17, flat.DescIndirect, 0).Add(0).Kick()
	}},
	{"indirect table outside of memory", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, 1<<40, 64, flat.DescIndirect, 0).Add(0).Kick()
	}},
	{"giant indirect table", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, tableAt, 0xffff_fff0, flat.DescIndirect, 0).Add(0).Kick()
	}},
	{"indirect table in an indirect table", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, tableAt, 32, flat.DescIndirect, 0).Descriptor(tableAt, 0, tableAt, 32, flat.DescIndirect, 0).Add(0).Kick()
	}},
	{"loop in an indirect table", func(d *flat.Device) {
		d.Start(ringAt).Descriptor(ringAt, 0, tableAt, 32, flat.DescIndirect, 0).
			Descriptor(tableAt, 0, bufferAt, 1, flat.DescWrite|flat.DescNext, 0).Add(0).Kick()
	}},
	{"rings outside of memory", func(d *flat.Device) { d.Start(1 << 60) }},
	{"rings at an odd address", func(d *flat.Device) { d.Start(ringAt + 4) }},
}

// good does one request and waits for it, on a queue that has just been started.
func good(d *flat.Device) {
	d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 64, flat.DescWrite, 0).Add(0).Kick().AwaitUsed(1)
}

// readOnly writes ones over all of the configuration space of a device and over its
// registers, and expects what must not change.
func readOnly(k *flat.Kernel, d *flat.Device) {
	const vendorDevice, classRevision, vectorQueues = 0x1044_1af4, 0xff00_0001, 0x0001_ffff
	for off := uint32(0); off < 0x100; off += 4 {
		k.Write32(d.Config(off), 0xffff_ffff)
	}
	k.Write16(d.Config(0x42), 0) // MSI-X off again
	d.Place()
	k.Check(d.Config(0), vendorDevice).Check(d.Config(8), classRevision)
	d.Reset()
	k.Write16(d.BAR(flat.RegNumQueues), 99).Check(d.BAR(0x10), vectorQueues)
	k.Write32(d.BAR(4), 0) // the features that the device offers
	for _, off := range []uint32{0x1000, 0x2000, 0x2ffc, 0x5ffc, 0x6000, 0x7ffc} {
		k.Write32(d.BAR(off), 0xffff_ffff)
	}
}

// absentQueues sets up and notifies queues that the device does not have.
func absentQueues(k *flat.Kernel, d *flat.Device) {
	d.Start(ringAt)
	for _, queue := range []uint16{1, 60, 0xffff} {
		k.Write16(d.BAR(flat.RegQueueSelect), queue).Write16(d.BAR(flat.RegQueueSize), 64).Write32(d.BAR(flat.RegQueueDesc), otherRing)
		k.Write16(d.BAR(flat.RegQueueEnable), 1).Write16(d.BAR(flat.RegQueueVector), 7)
	}
	for off := uint32(4); off < 0x1000; off += 252 {
		k.Write16(d.BAR(flat.RegNotify+off), uint16(off/4))
	}
	k.Write16(d.BAR(flat.RegNotify+0xffe), 0xffff)
}

// TestBadDrivers has a guest break its devices: each is marked, comes back with a
// reset, and the rest of the machine goes on.
func TestBadDrivers(t *testing.T) {
	k := &flat.Kernel{}
	d := k.Device(rngSlot, 0, queueSize, ringAt).Place()
	for i, bad := range badDrivers {
		bad.do(d)
		d.AwaitBroken()
		k.Print(string(rune('a' + i)))
		good(d)
	}
	k.Print("\n")
	readOnly(k, d)
	good(d)
	k.Print("read-only\n")
	absentQueues(k, d)
	good(d)
	k.Print("absent\n")
	console := k.Device(consoleSlot, 1, queueSize, otherRing).Place()
	console.Start(otherRing).Descriptor(otherRing, 0, bufferAt, 64, flat.DescNext, 0).Add(0).Kick().AwaitBroken()
	k.Print("done\n")
	v := startFlat(t, "bad", k.ELF(), 0)
	v.expect("done")
	kept, err := v.snapshot()
	if want := letters(len(badDrivers)) + "\nread-only\nabsent\ndone\n"; err != nil || kept != want {
		t.Errorf("%v: %q, want %q", err, kept, want)
	}
	if d := v.device("rng"); !d.Ready || d.Broken != "" {
		t.Errorf("%+v", d)
	}
	if d := v.device("console"); d.Ready || !strings.Contains(d.Broken, "driver broke the virtqueue: chain longer than the queue of 64") {
		t.Errorf("%+v", d)
	}
	log, err := os.ReadFile(v.log)
	if n := strings.Count(string(log), "stopped until it is reset"); err != nil || n != len(badDrivers)+1 {
		t.Errorf("%d devices stopped, says the log (%v)", n, err)
	}
}

func letters(n int) string {
	out := ""
	for i := range n {
		out += string(rune('a' + i))
	}
	return out
}

// snapshot is what the ring of COM1 keeps.
func (v *flatVM) snapshot() (string, error) {
	conn, err := v.process.Client().Console(v.t.Context(), vmm.ConsoleSerial)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buf, out := make([]byte, 4096), ""
	for {
		n, err := conn.Read(buf)
		out += string(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

// storms are guests that never stop. check looks at what the storm did to its VM.
var storms = []struct {
	name  string
	build func(k *flat.Kernel)
	check func(t *testing.T, s vmm.Stats)
}{
	{"serial", func(k *flat.Kernel) {
		again := k.Here()
		k.PrintMemory(0x10_0000, 100).Jump(again)
	}, func(t *testing.T, s vmm.Stats) {
		if s.Consoles[0].ID != vmm.ConsoleSerial || s.Consoles[0].Bytes < 1000 || s.VCPUs[0].Reasons["io"] < 1000 {
			t.Errorf("%+v", s)
		}
	}},
	{"console", func(k *flat.Kernel) {
		d := k.Device(consoleSlot, 1, queueSize, ringAt).Place()
		again := k.Here()
		d.Start(ringAt)
		for i := range uint32(queueSize) {
			flags := uint16(flat.DescNext)
			if i == queueSize-1 {
				flags = 0
			}
			d.Descriptor(ringAt, i, bufferAt, bufferSize, flags, uint16(i+1))
		}
		for range queueSize {
			d.Add(0)
		}
		d.Kick().AwaitUsed(queueSize)
		k.Jump(again)
	}, func(t *testing.T, s vmm.Stats) {
		// A chain is half a GiB; the ring takes 4 MiB, then one a second, and the
		// device waits to make up for it.
		c := s.Consoles[1]
		if c.ID != vmm.ConsoleVirtio || c.Dropped < 256<<20 || c.Bytes > 64<<20 {
			t.Errorf("%+v", c)
		}
	}},
	{"interrupts", func(k *flat.Kernel) {
		d := k.Device(rngSlot, 0, queueSize, ringAt).Place()
		k.Write16(d.Config(0x42), 0x8000)
		for i := range uint32(2) {
			entry := d.BAR(flat.RegTable + 16*i)
			k.Write32(entry, 0xfee0_0000).Write32(entry+4, 0).Write32(entry+8, 0x30).Write32(entry+12, 0)
		}
		again := k.Here()
		d.Start(ringAt).Descriptor(ringAt, 0, bufferAt, 8, flat.DescWrite, 0)
		for range 200 {
			d.Add(0).Kick()
			k.Write32(d.BAR(flat.RegTable+12), 1).Write32(d.BAR(flat.RegTable+12), 0)
			k.Write16(d.Config(0x42), 0xc000).Write16(d.Config(0x42), 0x8000)
		}
		k.Jump(again)
	}, func(t *testing.T, s vmm.Stats) {
		if s.VCPUs[0].Reasons["mmio"] < 100 {
			t.Errorf("%+v", s.VCPUs)
		}
	}},
	{"configuration", func(k *flat.Kernel) {
		d, other := k.Device(rngSlot, 0, queueSize, ringAt).Place(), k.Device(consoleSlot, 0, queueSize, otherRing).Place()
		again := k.Here()
		for _, addr := range []uint32{other.BAR(0), d.BAR(0), 0xfffff000, 0, 0xfee0_0000, 0x10_0000, 0xc000_0000} {
			k.Write32(d.Config(0x10), addr).Write32(d.Config(0x14), addr).Write16(d.Config(4), 0).Write16(d.Config(4), 6).Write32(d.Config(0x14), 0)
			k.Out32(0xcf8, 0x8000_0000|rngSlot<<11|0x10).Out32(0xcfc, addr).Out8(0xcfe, 0xff)
		}
		k.Jump(again)
	}, func(t *testing.T, s vmm.Stats) {
		if s.VCPUs[0].Reasons["mmio"] < 100 || s.VCPUs[0].Reasons["io"] < 50 {
			t.Errorf("%+v", s.VCPUs)
		}
	}},
}

// testBadNeighbours runs each storm beside g for a while: g answers, and so does the
// VM process of the storm, which ends when it is asked to.
func (g *guest) testBadNeighbours(t *testing.T) {
	g.t = t
	for _, s := range storms {
		k := &flat.Kernel{}
		s.build(k)
		v := startFlat(t, "storm", k.ELF(), 0)
		began := time.Now()
		for i := range rounds(4, 100) {
			if out := g.ask(fmt.Sprintf("echo alive %d; dd if=/dev/vda bs=4k count=4 iflag=direct 2>/dev/null | wc -c", i)); out != fmt.Sprintf("alive %d\n16384", i) {
				t.Errorf("beside %s: %q", s.name, out)
			}
			<-time.After(100 * time.Millisecond)
		}
		stats, err := v.process.Client().Stats(t.Context())
		g.must(err)
		s.check(t, stats)
		info, err := os.Stat(v.log)
		g.must(err)
		t.Logf("%s: %v, exits %v, consoles %+v, heap %d KiB, log %d KiB", s.name, time.Since(began).Round(time.Millisecond), stats.VCPUs[0].Reasons,
			stats.Consoles, stats.Process.RuntimeBytes>>10, info.Size()>>10)
		if info.Size() > 2<<20 || stats.Process.RuntimeBytes > 64<<20 {
			t.Errorf("%s: log of %d bytes, %d bytes of memory", s.name, info.Size(), stats.Process.RuntimeBytes)
		}
		g.must(v.process.Client().Quit(t.Context()))
		if r := v.wait(); r.Reason != vmm.ReasonQuit {
			t.Errorf("%s: %+v", s.name, r)
		}
		v.gone()
	}
}

// TestCrashReport has a guest end in a triple fault.
func TestCrashReport(t *testing.T) {
	k := &flat.Kernel{}
	v := startFlat(t, "crash", k.Print("last words\n").TripleFault().ELF(), 0)
	r := v.wait()
	c := r.Crash
	if r.Reason != vmm.ReasonTripleFault || r.Code != qverr.TripleFault || c == nil || c.Code != r.Code || c.VCPU == nil || *c.VCPU != 0 || len(c.VCPUs) != 1 {
		t.Fatalf("%+v, %+v", r, c)
	}
	u := c.VCPUs[0]
	t.Logf("reset %v, registers %v", c.RegistersReset, u.Registers)
	last := u.LastExits[len(u.LastExits)-2:]
	if want := (vmm.ExitRecord{Reason: "io", Access: "write", Addr: 0x3f8, Size: 1, Data: '\n'}); last[0] != want || last[1].Reason != "shutdown" {
		t.Errorf("%+v", last)
	}
	if len(u.Registers) < 30 || c.RegistersReset && u.Registers["rip"] != 0xfff0 {
		t.Errorf("%v", u.Registers)
	}
	if len(c.Devices) < 3 {
		t.Errorf("%+v", c.Devices)
	}
	v.gone()
}
