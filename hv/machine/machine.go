package machine

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"quantavirt/hv/config"
	"quantavirt/hv/cpumodel"
	"quantavirt/hv/kvm"
	"quantavirt/hv/memory"
	"quantavirt/hv/pci"
	"quantavirt/hv/serial"
	"quantavirt/internal/qverr"
)

// Options are all that a machine is made of, besides its PCI devices.
type Options struct {
	CPUs    int // 1 to config.MaxCPUs
	CPU     config.CPU
	Memory  int64  // bytes
	Cmdline string // of the kernel
	// Generation is the generation id; zero: a random one.
	Generation [16]byte
	// MemoryFrom is where memory comes from on the host.
	MemoryFrom config.MemoryFrom

	KVM *os.File // /dev/kvm
	// Kernel is a bzImage, which unpacks itself in the guest, or an ELF file
	// (vmlinux) with a PVH note, which starts sooner but at a fixed address.
	Kernel *os.File
	// Unpacked is what Unpack made of a bzImage: the machine then starts that
	// instead of having the guest unpack the kernel. nil for none.
	Unpacked *os.File
	Initrd   *os.File // nil for none
	// Firmware is started instead of a kernel, which is then not needed; nil for none.
	Firmware *Firmware

	// Serial gets what the guest prints on COM1. It must not block.
	Serial io.Writer
	// OnState is told each new state, in order, by one goroutine at a time.
	// It must not call the machine's methods that change the state. May be nil.
	OnState func(State)
	Log     *slog.Logger // nil: discard
}

// State of a machine.
type State int

// The states. Built lasts until Start; Ended is final.
const (
	Built State = iota
	Running
	Paused
	Ended
)

func (s State) String() string {
	return [...]string{"built", "running", "paused", "ended"}[s]
}

// Reason says why a machine ended.
type Reason int

// The reasons.
const (
	PoweredOff  Reason = iota + 1 // by the guest
	Quit                          // by Machine.Quit
	TripleFault                   // the guest's CPU gave up
	Failed                        // an error of ours, of KVM or of the hardware
)

func (r Reason) String() string {
	return [...]string{"not ended", "powered off", "quit", "triple fault", "failed"}[r]
}

// Exit is how a machine ended. Err carries a catalogue code for TripleFault and
// Failed and is nil otherwise.
type Exit struct {
	Reason Reason
	Err    error
	Crash  *Crash // for TripleFault and Failed, unless there were no vCPUs
}

// Machine is one virtual machine. Its methods may be called from any goroutine.
type Machine struct {
	opts   Options
	log    *slog.Logger
	system *kvm.System
	topo   topology
	cpuid  []kvm.CPUIDEntry
	mem    *memory.Memory
	host   *host
	bus    *pci.Bus
	uart   *serial.UART
	pm     *powerManagement
	rtc    *clockChip
	gen    *generation
	ports  []portRange
	// firmware is nil when a kernel is started directly.
	firmware *firmware

	// image is where the kernel was loaded; it goes with entryPoint.
	image []span

	ctl    sync.Mutex // serializes changes of the state
	vm     *kvm.VM    // replaced by a reset
	events chan event
	pace   *rate.Limiter // of resets by the guest
	done   chan struct{}
	wg     sync.WaitGroup // the supervisor

	mu         sync.Mutex // guards what follows and the requests of vCPUs
	cond       *sync.Cond
	state      State
	exit       Exit
	vcpus      []*vcpu
	generation int
	resets     uint64
	counters   []*counters // by vCPU, over all generations

	firstEntry atomic.Int64 // Unix nanoseconds, 0 before

	// first is how the first load of the guest ended, which goes on while the rest
	// of the machine is built; nil once it was taken.
	first chan loaded
}

// span is a range of guest physical addresses.
type span struct{ addr, size uint64 }

type loaded struct {
	entry entryPoint
	err   error
}

// New makes a machine in state Built. The caller keeps the files open until
// Close; the kernel and the initrd are read again at each reset.
func New(o Options) (*Machine, error) {
	if o.CPUs < 1 || o.CPUs > config.MaxCPUs {
		return nil, qverr.New(qverr.Topology, "%d vCPUs: 1 to %d are possible", o.CPUs, config.MaxCPUs)
	}
	if o.Memory < config.MinMemory {
		return nil, qverr.New(qverr.Inval, "%d bytes of memory: at least %d are needed", o.Memory, config.MinMemory)
	}
	if err := o.CPU.Topology.Check(o.CPUs); err != nil {
		return nil, err
	}
	if err := checkPinning(o.CPU.Pinning); err != nil {
		return nil, err
	}
	m := &Machine{opts: o, log: o.Log, topo: newTopology(o.CPU.Topology, o.CPUs), events: make(chan event, o.CPUs+1), done: make(chan struct{}),
		pace: rate.NewLimiter(resetRate, resetBurst)}
	m.cond = sync.NewCond(&m.mu)
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.opts.Serial == nil {
		m.opts.Serial = io.Discard
	}
	if err := m.build(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Machine) build() (err error) {
	if m.system, err = kvm.Open(m.opts.KVM); err != nil {
		return err
	}
	supported, err := m.system.SupportedCPUID()
	if err != nil {
		return err
	}
	if supported, err = cpumodel.Apply(supported, m.opts.CPU.Model, m.opts.CPU.Features); err != nil {
		return err
	}
	m.cpuid = filterCPUID(supported, m.topo)
	if m.mem, err = memory.NewFrom(m.opts.Memory, memory.Options{HugePage: m.opts.MemoryFrom.PageBytes(), Node: m.opts.MemoryFrom.Node}); err != nil {
		return err
	}
	bits := physBits(m.cpuid)
	if last := m.mem.Regions()[len(m.mem.Regions())-1]; last.End() > 1<<bits {
		return qverr.New(qverr.Limit, "%d bytes of memory: the host's CPU gives guests %d address bits", m.opts.Memory, bits)
	}
	if m.gen, err = newGeneration(m.opts.Generation); err != nil {
		return err
	}
	if m.opts.Firmware != nil {
		if err := m.addFirmware(); err != nil {
			return err
		}
	}
	m.first = make(chan loaded, 1)
	go func() {
		entry, err := m.loadGuest()
		m.first <- loaded{entry, err}
	}()
	if m.vm, err = m.newVM(); err != nil {
		return err
	}
	m.host = newHost(m.vm)
	if err := m.host.routeChips(); err != nil {
		return err
	}
	m.bus = pci.NewBus(m.host, windows(m.mem, bits), func(err error) { m.log.Warn("the guest moves BARs", "err", err) })
	m.uart = serial.New(m.opts.Serial, func(high bool) { m.host.setLine(irqCOM1, high) })
	m.pm = newPowerManagement(func(high bool) { m.host.setLine(irqSCI, high) })
	m.rtc = newClockChip()
	m.ports = m.portMap()
	for range m.opts.CPUs {
		m.counters = append(m.counters, &counters{})
	}
	return nil
}

// newVM makes the kernel's object: memory slots, interrupt controllers, timer.
func (m *Machine) newVM() (*kvm.VM, error) {
	if most := m.system.Check(kvm.CapMaxVCPUs); m.opts.CPUs > most {
		return nil, qverr.New(qverr.Limit, "%d vCPUs: KVM on this host gives a VM at most %d", m.opts.CPUs, most)
	}
	vm, err := m.system.CreateVM()
	if err != nil {
		return nil, err
	}
	if err := m.fillVM(vm); err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	return vm, nil
}

func (m *Machine) fillVM(vm *kvm.VM) error {
	if !m.system.AMD() {
		if err := vm.SetTSSArea(tssAddr); err != nil {
			return err
		}
	}
	if m.topo.wide() {
		if err := vm.WideAPICIDs(); err != nil {
			return err
		}
	}
	if err := vm.CreateIRQChip(); err != nil {
		return err
	}
	if err := vm.CreatePIT(); err != nil {
		return err
	}
	for i, r := range m.mem.Regions() {
		if err := vm.SetMemory(kvm.MemoryRegion{Slot: uint32(i), GPA: r.GPA, Size: r.Size, HostAddr: hostAddr(r.Data)}); err != nil {
			return err
		}
	}
	if m.firmware != nil {
		if err := m.mapFirmware(vm); err != nil {
			return err
		}
	}
	return vm.SetMemory(m.gen.region())
}

// Memory is the guest's RAM.
func (m *Machine) Memory() *memory.Memory { return m.mem }

// Bus is the PCI bus. Devices are added before Start.
func (m *Machine) Bus() *pci.Bus { return m.bus }

// SerialInput types on COM1. It never blocks; what the guest has no room for is
// answered with QV_ERR_AGAIN and the number of bytes taken.
func (m *Machine) SerialInput() io.Writer { return m.uart }

// State is the present state.
func (m *Machine) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait returns how the machine ended, once it has.
func (m *Machine) Wait() Exit {
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// Close ends the machine if it still runs and frees everything. Devices must
// not touch the guest's memory any more.
func (m *Machine) Close() {
	m.Quit()
	m.wg.Wait()
	if m.first != nil {
		<-m.first // nothing writes to the memory any more
	}
	if m.bus != nil {
		m.bus.Close()
	}
	if m.host != nil {
		m.host.drop()
	}
	if m.vm != nil {
		_ = m.vm.Close()
	}
	if m.gen != nil {
		m.gen.close()
	}
	if m.firmware != nil {
		m.firmware.close()
	}
	if m.mem != nil {
		_ = m.mem.Close()
	}
}

// setState publishes a state; m.ctl is held.
func (m *Machine) setState(s State) {
	m.mu.Lock()
	changed := m.state != s
	m.state = s
	m.mu.Unlock()
	if changed && m.opts.OnState != nil {
		m.opts.OnState(s)
	}
}
