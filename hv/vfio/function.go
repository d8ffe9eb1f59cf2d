package vfio

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// Hardware is a function as VFIO shows it: *vfio.Device of quantavirt/internal/vfio.
type Hardware interface {
	Address() string
	ReadConfig(off int64, p []byte) error
	WriteConfig(off int64, p []byte) error
	Region(bar int) vfio.Region
	MapRegion(bar int, off uint64, length int) ([]byte, error)
	ReadRegion(bar int, off uint64, p []byte) error
	WriteRegion(bar int, off uint64, p []byte) error
	EnableMSIX(eventfds []int32) error
	EnableMSI(eventfds []int32) error
	OnError(eventfd int32) error
	OnRequest(eventfd int32) error
	CanReset() bool
	Reset() error
	Close()
}

var _ Hardware = (*vfio.Device)(nil)

// Options of a function.
type Options struct {
	// Fail is told, once, why the guest cannot go on with the function: it reported an
	// error that it cannot correct, or the host wants it back.
	Fail func(error)
	Log  *slog.Logger // nil: discard
}

// Function is a function of the machine on the guest's bus.
type Function struct {
	hw   Hardware
	opts Options
	pci  *pci.Device

	// Guarded by the bus, which serializes what calls them: configuration accesses
	// and resets.
	command   uint16 // as the hardware has it
	commanded bool

	events  []*os.File
	waiting sync.WaitGroup
	failed  sync.Once

	mu     sync.Mutex
	closed bool
	inUse  bool // interrupts are on
}

// Offsets and bits of the header of the hardware (PCI 3.0, 6.1).
const (
	cfgSize       = 256
	cfgVendor     = 0x00
	cfgCommand    = 0x04
	cfgStatus     = 0x06
	cfgRevision   = 0x08
	cfgHeaderType = 0x0e
	cfgBAR0       = 0x10
	cfgSubsystem  = 0x2c
	cfgCapPointer = 0x34

	commandMemory  = 1 << 1
	commandMaster  = 1 << 2
	commandIntxOff = 1 << 10

	statusCapList = 1 << 4

	barIO       = 1
	bar64       = 4
	barPrefetch = 8
	bars        = 6

	page = 4096
)

// New makes what the guest sees of hw, which it owns from then on, also when it fails.
// The function is reset. Unsupported for bridges.
func New(hw Hardware, o Options) (*Function, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Function{hw: hw, opts: o}
	if err := f.build(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Function) build() error {
	f.resetHardware()
	cfg := make([]byte, cfgSize)
	if err := f.hw.ReadConfig(0, cfg); err != nil {
		return err
	}
	if cfg[cfgHeaderType]&0x7f != 0 {
		return qverr.New(qverr.Unsupported, "%s is a bridge: only endpoints can be passed through", f.hw.Address())
	}
	le := binary.LittleEndian
	f.pci = pci.NewDevice(f.hw.Address(), pci.Identity{
		Vendor: le.Uint16(cfg[cfgVendor:]), Device: le.Uint16(cfg[cfgVendor+2:]),
		SubsystemVendor: le.Uint16(cfg[cfgSubsystem:]), SubsystemID: le.Uint16(cfg[cfgSubsystem+2:]),
		Class: le.Uint32(cfg[cfgRevision:]) >> 8, Revision: cfg[cfgRevision],
	})
	f.pci.OnCommand(f.setCommand)
	f.pci.OnReset(f.machineReset)
	for _, step := range []func(cfg []byte) error{f.addBARs, f.addCapabilities, f.addMemory} {
		if err := step(cfg); err != nil {
			return err
		}
	}
	f.setCommand(0) // firmware may place BARs before anybody writes the register
	return errors.Join(f.watch(f.hw.OnRequest, func() error {
		return qverr.New(qverr.NoDev, "the host wants %s back: it is taken out of the machine, or given to another driver", f.hw.Address())
	}), f.watchErrors())
}

// PCI is what goes on the guest's bus.
func (f *Function) PCI() *pci.Device { return f.pci }

// InUse tells whether the guest's driver has switched interrupts on.
func (f *Function) InUse() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inUse
}

// resetHardware brings the function back to where it begins. One that cannot be reset
// by itself was reset with its bus when it was opened.
func (f *Function) resetHardware() {
	if f.hw.CanReset() {
		if err := f.hw.Reset(); err != nil {
			f.opts.Log.Warn("reset a function of the machine", "err", err)
		}
	}
	f.commanded = false
}

// machineReset follows the reset of the guest: it must find what a cold start has.
func (f *Function) machineReset() {
	command := f.command
	f.resetHardware()
	f.setCommand(command)
}

// functionReset is what the guest asks for by its configuration space.
func (f *Function) functionReset() {
	command := f.command
	f.resetHardware()
	f.setCommand(command)
	f.opts.Log.Info("the guest reset a function of the machine", "address", f.hw.Address())
}

// setCommand makes the hardware follow the guest's command register. Memory stays
// decoded: the guest's own decoding is that of the bus, and an access while the
// hardware had it off would end the VM.
func (f *Function) setCommand(guest uint16) {
	command := commandMemory | guest&(commandMaster|commandIntxOff)
	if f.commanded && command == f.command {
		return
	}
	f.command, f.commanded = command, true
	var word [2]byte
	binary.LittleEndian.PutUint16(word[:], command)
	if err := f.hw.WriteConfig(cfgCommand, word[:]); err != nil {
		f.opts.Log.Warn("command register of a function of the machine", "err", err)
	}
}

// watch calls Fail when the kernel signals what arm is for.
func (f *Function) watch(arm func(eventfd int32) error, why func() error) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "eventfd for %s: %w", f.hw.Address(), err)
	}
	file := os.NewFile(uintptr(fd), "vfio-event")
	if err := arm(int32(fd)); err != nil {
		return errors.Join(err, file.Close())
	}
	f.events = append(f.events, file)
	f.waiting.Go(func() {
		var count [8]byte
		if _, err := file.Read(count[:]); err == nil {
			f.failed.Do(func() { f.opts.Fail(why()) })
		}
	})
	return nil
}

// watchErrors waits for errors, where the function has reports of them.
func (f *Function) watchErrors() error {
	err := f.watch(f.hw.OnError, func() error {
		return qverr.New(qverr.IO, "%s reports an error that it cannot correct (PCI Express)", f.hw.Address()).
			With("device", f.hw.Address())
	})
	if errors.Is(err, qverr.NoDev) {
		return nil
	}
	return err
}

// Close ends what the function does, no DMA and no interrupt come after it, and gives it
// back, reset. The guest must not run any more.
func (f *Function) Close() {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return
	}
	f.setCommand(0)
	for _, e := range f.events {
		_ = e.Close()
	}
	f.waiting.Wait()
	f.resetHardware()
	f.hw.Close()
}
