package machine

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/kvm"
	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// Programs for the 32-bit entry of PVH, as machine code.
var (
	powerOff = "\x66\xba\x04\x06\x66\xb8\x00\x34\x66\xef\xf4\xeb\xfd" // outw 0x3400, 0x604; hlt
	spin     = "\xeb\xfe"
	spinIO   = "\xe4\x92\xeb\xfc" // inb 0x92 for ever
	triple   = "\xcc"             // int3 without an IDT
	halt     = "\xf4\xeb\xfd"
)

func print32(s string) string { // mov $0x3f8, %dx; then mov and out for each byte
	code := "\x66\xba\xf8\x03"
	for _, c := range []byte(s) {
		code += "\xb0" + string([]byte{c}) + "\xee"
	}
	return code
}

// output is what the guest printed.
type output struct {
	mu      sync.Mutex
	b       strings.Builder
	want    int
	reached chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.b.Write(p)
	if o.reached != nil && o.b.Len() >= o.want {
		close(o.reached)
		o.reached = nil
	}
	return n, err
}

// after is closed when n bytes were printed. The guest does not run yet.
func (o *output) after(n int) <-chan struct{} {
	c := make(chan struct{})
	o.want, o.reached = n, c
	return c
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// realKVM opens KVM. It needs a CPU that can virtualize: a /dev/kvm alone proves
// nothing.
func realKVM(t *testing.T) *os.File {
	t.Helper()
	info, _ := os.ReadFile("/proc/cpuinfo")
	if !strings.Contains(string(info), " svm") && !strings.Contains(string(info), " vmx") {
		t.Skip("this CPU has no hardware virtualization")
	}
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no KVM: %v", err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// newGuest makes a machine that runs code.
func newGuest(t *testing.T, cpus int, code string) (*Machine, *output) {
	t.Helper()
	dev := realKVM(t)
	out := &output{}
	m, err := New(Options{CPUs: cpus, Memory: 16 << 20, KVM: dev, Kernel: tempFile(t, testELF([]byte(code), true)), Serial: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, out
}

func start(t *testing.T, m *Machine) {
	t.Helper()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, m *Machine, want Reason) Exit {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatal("the machine does not end")
	}
	e := m.Wait()
	if e.Reason != want {
		t.Fatalf("ended: %s (%v), want %s", e.Reason, e.Err, want)
	}
	return e
}

func TestPrintAndPowerOff(t *testing.T) {
	m, out := newGuest(t, 1, print32("hello")+powerOff)
	begin := time.Now()
	start(t, m)
	wait(t, m, PoweredOff)
	if out.String() != "hello" {
		t.Errorf("%q", out.String())
	}
	s := m.Stats()
	if s.VCPUs[0].Exits[kvm.ExitIO] < 6 || s.VCPUs[0].Total() < 6 || s.Touched == 0 || s.FirstEntry.IsZero() {
		t.Errorf("%+v", s)
	}
	t.Logf("start to first entry: %v", s.FirstEntry.Sub(begin.Round(0)))
}

func TestTripleFault(t *testing.T) {
	m, _ := newGuest(t, 2, print32("abc")+triple)
	start(t, m)
	e := wait(t, m, TripleFault)
	if !errors.Is(e.Err, qverr.TripleFault) {
		t.Error(e.Err)
	}
	c := e.Crash
	if c == nil || c.VCPU != 0 || len(c.VCPUs) != 2 || c.VCPUs[0].Err != nil || c.RegistersReset != m.system.AMD() {
		t.Fatalf("%+v", c)
	}
	last := c.VCPUs[0].Last
	if n := len(last); n < 4 || last[n-1].Reason != kvm.ExitShutdown ||
		last[n-2] != (LastExit{Reason: kvm.ExitIO, Addr: portCOM1, Size: 1, Write: true, Data: 'c'}) {
		t.Errorf("%+v", last)
	}
	// Registers after an INIT are those of the reset vector.
	if c.RegistersReset && (c.VCPUs[0].Regs.RIP != 0xfff0 || c.VCPUs[0].Sregs.CS.Selector != 0xf000) {
		t.Errorf("%+v", c.VCPUs[0].Regs)
	}
}

func TestECAMAndUnclaimedMemory(t *testing.T) {
	read := func(addr string) string { // mov addr, %eax; out the four bytes
		return "\xa1" + addr + "\x66\xba\xf8\x03" + strings.Repeat("\xee\xc1\xe8\x08", 4)
	}
	m, out := newGuest(t, 1, read("\x00\x00\x00\xc0")+read("\x00\x00\xd0\xfe")+powerOff)
	start(t, m)
	wait(t, m, PoweredOff)
	if out.String() != "\x36\x1b\x08\x00\xff\xff\xff\xff" {
		t.Errorf("% x", out.String())
	}
}

func TestStringInstruction(t *testing.T) {
	// mov $15, %ecx; mov $text, %esi; mov $0x3f8, %dx; cld; rep outsb
	code := "\xb9\x0f\x00\x00\x00\xbe\x00\x00\x10\x00\x66\xba\xf8\x03\xfc\xf3\x6e" + powerOff
	text := len(code)
	code = strings.Replace(code, "\xbe\x00", "\xbe"+string([]byte{byte(text)}), 1) + "a string of text"
	m, out := newGuest(t, 1, code)
	start(t, m)
	wait(t, m, PoweredOff)
	if out.String() != "a string of tex" {
		t.Errorf("%q", out.String())
	}
}

func TestGuestReset(t *testing.T) {
	// CMOS RAM keeps over a reset what memory must not: byte 0x40 counts.
	code := print32("x") +
		"\xa1\x00\x00\x20\x00\x85\xc0\x75\x2e" + // memory at 2 MiB not zero: power off early
		"\xc7\x05\x00\x00\x20\x00\x01\x00\x00\x00" + // make it not zero
		"\xb0\x40\xe6\x70\xe4\x71\x3c\x03\x74\x1a" + // three times: power off
		"\xfe\xc0\x88\xc3\xb0\x40\xe6\x70\x88\xd8\xe6\x71" +
		"\x66\xba\xf9\x0c\xb0\x06\xee\xf4\xeb\xfd" + "\x90\x90\x90\x90" + powerOff
	m, out := newGuest(t, 2, code)
	var states []State
	m.opts.OnState = func(s State) { states = append(states, s) }
	start(t, m)
	wait(t, m, PoweredOff)
	if out.String() != "xxxx" || m.Stats().Resets != 3 {
		t.Errorf("%q after %d resets", out.String(), m.Stats().Resets)
	}
	if len(states) != 2 || states[0] != Running || states[1] != Ended {
		t.Errorf("states %v", states)
	}
}

// TestResetLoop has a guest that does nothing but reset: it is slowed down, and can be
// ended all the same.
func TestResetLoop(t *testing.T) {
	m, out := newGuest(t, 1, print32("x")+"\xb0\xfe\xe6\x64"+halt) // mov $0xfe, %al; out %al, $0x64
	seen := out.after(1 + resetBurst + 2)
	begin := time.Now()
	start(t, m)
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatalf("%d resets", m.Stats().Resets)
	}
	if took := time.Since(begin); took < 1500*time.Millisecond {
		t.Errorf("%d resets in %v", m.Stats().Resets, took)
	}
	m.Quit()
	wait(t, m, Quit)
}

func TestPauseResume(t *testing.T) {
	for name, code := range map[string]string{"computing": spin, "port access": spinIO, "halted": halt} {
		t.Run(name, func(t *testing.T) {
			m, _ := newGuest(t, 2, code)
			start(t, m)
			for i := range 50 {
				if err := m.Pause(); err != nil {
					t.Fatal(err)
				}
				before := m.Stats()
				if err := m.Pause(); !errors.Is(err, qverr.State) {
					t.Fatalf("second pause: %v", err)
				}
				if after := m.Stats(); after.VCPUs[0].Total() != before.VCPUs[0].Total() {
					t.Fatal("a paused vCPU exits")
				}
				if i == 25 {
					if err := m.Reset(); err != nil {
						t.Fatal(err)
					}
					if m.State() != Paused {
						t.Fatalf("a reset of a paused machine leaves it %s", m.State())
					}
				}
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			m.Quit()
			wait(t, m, Quit)
			for _, err := range []error{m.Pause(), m.Resume(), m.Reset(), m.PowerButton(), m.Start()} {
				if !errors.Is(err, qverr.State) {
					t.Errorf("after the end: %v", err)
				}
			}
		})
	}
}

func TestResetsAndQuitRace(t *testing.T) {
	m, _ := newGuest(t, 4, spinIO)
	start(t, m)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				_ = m.Reset()
				_ = m.Pause()
				_ = m.Resume()
			}
		})
	}
	wg.Wait()
	m.Fail(qverr.New(qverr.StrIO, "a device gave up"))
	if e := wait(t, m, Failed); !errors.Is(e.Err, qverr.StrIO) {
		t.Error(e.Err)
	}
}

func TestDoorbell(t *testing.T) {
	// movw $1, 0xd0000010; then power off. The BAR has no handler: only the
	// eventfd can see it.
	m, _ := newGuest(t, 1, "\x66\xc7\x05\x10\x00\x00\xd0\x01\x00"+powerOff)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d := pci.NewDevice("bell", pci.Identity{Vendor: 0x1af4, Device: 0x1000})
	if err := errors.Join(d.AddBAR(0, pci.BAR{Size: 0x1000}), d.AddDoorbell(0, 0x10, 0, fd), m.Bus().Add(-1, d)); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	wait(t, m, PoweredOff)
	var count [8]byte
	if _, err := unix.Read(fd, count[:]); err != nil || count[0] != 1 {
		t.Fatalf("%v % x", err, count)
	}
}

func TestGuestErrors(t *testing.T) {
	for _, c := range []struct {
		name, code string
		want       qverr.Code
		rip        uint64
	}{
		{"code where no memory is", "\xb8\x00\x00\x00\xe0\xff\xe0", qverr.VMExit, 0xe000_0000}, // mov $0xe0000000, %eax; jmp *%eax
		{"memory that is gone", "\xa1\x00\x00\x20\x00" + halt, qverr.EPTViolation, 0x10_0000},  // mov 0x200000, %eax
	} {
		m, _ := newGuest(t, 1, c.code)
		page, err := m.Memory().Slice(0x20_0000, 0x1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mprotect(page, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		start(t, m)
		e := wait(t, m, Failed)
		if !errors.Is(e.Err, c.want) {
			t.Errorf("%s: %v", c.name, e.Err)
		}
		// Here the registers are the guest's.
		if rip := e.Crash.VCPUs[0].Regs.RIP; e.Crash.RegistersReset || rip != c.rip {
			t.Errorf("%s: rip %#x", c.name, rip)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		o    Options
		code qverr.Code
	}{
		{Options{CPUs: 0, Memory: 64 << 20}, qverr.Topology},
		{Options{CPUs: 257, Memory: 64 << 20}, qverr.Topology},
		{Options{CPUs: 1, Memory: 4096}, qverr.Inval},
		{Options{CPUs: 1, Memory: 64 << 20, KVM: null}, qverr.NoVMX},
	} {
		c.o.Kernel = null
		if m, err := New(c.o); !errors.Is(err, c.code) {
			t.Errorf("%+v: %v", c.o, err)
			if m != nil {
				m.Close()
			}
		}
	}
}
