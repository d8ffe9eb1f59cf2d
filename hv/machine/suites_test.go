package machine

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/config"
	"quantavirt/hv/machine/testkernel"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/rng"
)

// kernelFor opens the test kernel: in the appliance it lies beside the tests.
func kernelFor(t *testing.T) *os.File {
	t.Helper()
	path := ""
	if dir := os.Getenv("QUANTAVIRT_NESTED"); dir != "" {
		path = filepath.Join(dir, "testkernel")
	} else {
		var err error
		if path, err = testkernel.Build(t.Context(), t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// operator reads what the test kernel prints, and does what it asks for.
type operator struct {
	output
	m    *Machine
	done map[string]bool
}

// The lines by which the test kernel asks for something.
const (
	askPress  = "press the power button"
	askChange = "change the generation"
)

func (o *operator) Write(p []byte) (int, error) {
	n, err := o.output.Write(p)
	for ask, do := range map[string]func(){
		askPress:  func() { _ = o.m.PowerButton() },
		askChange: func() { o.m.SetGeneration([16]byte{1, 2, 3}) },
	} {
		if !o.done[ask] && strings.Contains(o.String(), ask+"\n") {
			o.done[ask] = true
			go do()
		}
	}
	return n, err
}

// suiteOf is a line of the test kernel.
var suiteOf = regexp.MustCompile(`^(ok|FAIL) ([a-z]+): (.*)$`)

// TestSuites runs the test kernel, each of whose checks is a line.
func TestSuites(t *testing.T) {
	const few = " no-pci no-interrupts no-ioapic no-timers no-msix"
	for _, c := range []struct {
		name    string
		cpus    int
		cpu     config.CPU
		cmdline string
		least   int // so many checks must be good
	}{
		{"1", 1, config.CPU{}, "cpus=1", 79},
		{"2", 2, config.CPU{}, "cpus=2", 80},
		{"4", 4, config.CPU{Topology: config.Topology{Sockets: 1, Cores: 2, Threads: 2}}, "cpus=4 cores=2 threads=2", 80},
		{"8", 8, config.CPU{Topology: config.Topology{Sockets: 2, Cores: 2, Threads: 2}}, "cpus=8 sockets=2 cores=2 threads=2", 80},
		{"6 of 3 cores", 6, config.CPU{Topology: config.Topology{Sockets: 2, Cores: 3, Threads: 1}}, "cpus=6 sockets=2 cores=3" + few, 29},
		{"level 2", 1, config.CPU{Model: "x86-64-v2"}, "cpus=1 level=2" + few, 31},
		{"level 3", 1, config.CPU{Model: "x86-64-v3"}, "cpus=1 level=3" + few, 31},
		{"256", 256, config.CPU{Topology: config.Topology{Sockets: 2, Cores: 64, Threads: 2}}, "cpus=256 from=253 online=4 no-cpuid" + few, 19},
		// The last APIC id is 4<<6 + 32.
		{"wide ids", 165, config.CPU{Topology: config.Topology{Sockets: 5, Cores: 33, Threads: 1}},
			"cpus=165 from=286 online=4 no-cpuid no-interrupts no-ioapic no-timers no-pci", 31},
	} {
		t.Run(c.name, func(t *testing.T) {
			runSuites(t, Options{CPUs: c.cpus, CPU: c.cpu, Cmdline: c.cmdline}, c.least)
		})
	}
}

func runSuites(t *testing.T, o Options, least int) {
	o.KVM, o.Kernel, o.Memory = realKVM(t), kernelFor(t), 16<<20
	out := &operator{done: map[string]bool{}}
	o.Serial = out
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	out.m = m
	t.Cleanup(m.Close)
	dev, err := virtio.NewTransport("rng", rng.New(nil), virtio.ClassOther, m.Memory(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	if err := m.Bus().Add(2, dev.PCI()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	start(t, m)
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatalf("the test kernel does not end:\n%s", out.String())
	}
	if e := m.Wait(); e.Reason != PoweredOff {
		t.Errorf("ended: %s (%v)", e.Reason, e.Err)
	}
	good, lines := 0, strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		switch p := suiteOf.FindStringSubmatch(line); {
		case p != nil && p[1] == "ok":
			good++
		case line != "done" && line != askPress && line != askChange:
			t.Error(line)
		}
	}
	if lines[len(lines)-1] != "done" || good < least {
		t.Errorf("%d checks were good, the last line is %q", good, lines[len(lines)-1])
	}
	t.Logf("%d checks in %d ms", good, time.Since(begin).Milliseconds())
}
