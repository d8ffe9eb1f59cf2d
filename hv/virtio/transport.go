package virtio

import (
	"errors"
	"sync"
	"sync/atomic"

	"quantavirt/hv/memory"
	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// Device status bits, section 2.1.
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128

	statusWritable = statusAcknowledge | statusDriver | statusDriverOK | statusFeaturesOK | statusFailed
)

const (
	pciVendor     = 0x1af4
	pciDeviceBase = 0x1040
	noVector      = 0xffff
)

// Class codes of the devices.
const (
	ClassStorage = 0x018000
	ClassNetwork = 0x020000
	ClassOther   = 0xff0000
	ClassComm    = 0x078000
)

// queueSlot is what the driver has set for one queue.
type queueSlot struct {
	layout  Layout
	max     uint16
	enabled bool
	vector  atomic.Uint32
	kick    *Event
	queue   *Queue // from DRIVER_OK to reset
}

// Transport makes a Device a modern virtio-pci function.
type Transport struct {
	dev  Device
	mem  *memory.Memory
	pci  *pci.Device
	msix *pci.MSIX
	log  func(error)

	// status, isr and generation change outside of mu: a device's worker asks for
	// a reset while a vCPU waits for that worker to stop.
	status     atomic.Uint32
	isr        atomic.Uint32
	generation atomic.Uint32
	vector     atomic.Uint32 // of configuration changes
	broken     atomic.Pointer[error]

	mu            sync.Mutex // guards all below, and serializes calls of dev
	offered       uint64
	accepted      uint64
	deviceSelect  uint32
	driverSelect  uint32
	queueSelect   uint16
	queues        []*queueSlot
	active        bool
	capConfigData int // offset of the PCI_CFG capability
}

// NewTransport makes the PCI function for dev; the caller adds it to the bus.
// log is told why a device stopped.
func NewTransport(name string, dev Device, class uint32, mem *memory.Memory, log func(error)) (*Transport, error) {
	kind := dev.Type()
	t := &Transport{dev: dev, mem: mem, log: log, offered: dev.Features() | commonFeatures,
		pci: pci.NewDevice(name, pci.Identity{Vendor: pciVendor, Device: pciDeviceBase + kind,
			SubsystemVendor: pciVendor, SubsystemID: pciDeviceBase + kind, Class: class, Revision: 1})}
	t.vector.Store(noVector)
	if err := t.makeQueues(); err != nil {
		t.Close()
		return nil, err
	}
	if err := errors.Join(t.prepare(), t.addRegisters()); err != nil {
		t.Close()
		return nil, err
	}
	t.pci.OnReset(t.Reset)
	return t, nil
}

func (t *Transport) prepare() error {
	p, ok := t.dev.(Preparer)
	if !ok {
		return nil
	}
	var kicks []*Event
	for _, s := range t.queues {
		kicks = append(kicks, s.kick)
	}
	return p.Prepare(kicks)
}

func (t *Transport) makeQueues() error {
	sizes := t.dev.QueueSizes()
	if len(sizes) > maxQueues {
		return qverr.New(qverr.Limit, "%s: %d queues: %d are possible", t.pci.Name(), len(sizes), maxQueues)
	}
	for _, size := range sizes {
		kick, err := NewEvent()
		if err != nil {
			return err
		}
		s := &queueSlot{max: size, kick: kick}
		s.layout.Size = size
		s.vector.Store(noVector)
		t.queues = append(t.queues, s)
	}
	return nil
}

// PCI is the function to add to the bus.
func (t *Transport) PCI() *pci.Device { return t.pci }

// Device is what was given to NewTransport.
func (t *Transport) Device() Device { return t.dev }

// Ready tells whether the guest's driver has the device in use.
func (t *Transport) Ready() bool {
	return t.status.Load()&(statusDriverOK|statusNeedsReset|statusFailed) == statusDriverOK
}

// Broken tells why the device stopped until it is reset; nil if it did not.
func (t *Transport) Broken() error {
	if err := t.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Pause and Resume are those of the device. No vCPU may run meanwhile.
func (t *Transport) Pause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dev.Pause()
}

// Resume ends a Pause.
func (t *Transport) Resume() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dev.Resume()
}

// Reset is what status 0 does: all queues stop, all that the driver set is gone.
func (t *Transport) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
}

func (t *Transport) reset() {
	t.dev.Deactivate()
	t.active = false
	for _, s := range t.queues {
		s.layout = Layout{Size: s.max}
		s.enabled, s.queue = false, nil
		s.vector.Store(noVector)
	}
	t.accepted, t.deviceSelect, t.driverSelect, t.queueSelect = 0, 0, 0, 0
	t.vector.Store(noVector)
	t.isr.Store(0)
	t.broken.Store(nil)
	t.status.Store(0)
}

// Close stops the device and releases the events. The function must not be in use.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dev.Deactivate()
	if p, ok := t.dev.(Preparer); ok {
		p.Release()
	}
	for _, s := range t.queues {
		s.kick.Close()
	}
	t.queues = nil
}

// setStatus is a write of the driver to the status register.
func (t *Transport) setStatus(v uint32) {
	if v == 0 {
		t.reset()
		return
	}
	set := v & statusWritable &^ t.status.Load()
	if set&statusFeaturesOK != 0 && !t.acceptable() {
		set &^= statusFeaturesOK
	}
	if set&statusDriverOK != 0 && (t.status.Load()|set)&statusFeaturesOK == 0 {
		set &^= statusDriverOK
	}
	t.status.Or(set)
	if set&statusDriverOK != 0 {
		t.activate()
	}
}

// acceptable tells whether the driver may go on with the features it chose.
func (t *Transport) acceptable() bool {
	return t.accepted&^t.offered == 0 && t.accepted&FeatureVersion1 != 0
}

func (t *Transport) activate() {
	queues := make([]*Queue, len(t.queues))
	for i, s := range t.queues {
		if !s.enabled {
			continue
		}
		q, err := NewQueue(t.mem, s.layout, t.accepted)
		if err != nil {
			t.NeedsReset(err)
			return
		}
		q.Kick = s.kick
		q.Interrupt = func() { t.interrupt(&s.vector, isrQueue) }
		if v := s.vector.Load(); v != noVector {
			q.InterruptFD = t.msix.EventFD(int(v))
		}
		queues[i], s.queue = q, q
	}
	if err := t.dev.Activate(t.accepted, queues, t); err != nil {
		t.NeedsReset(err)
		return
	}
	t.active = true
}

// Bits of the ISR register, section 4.1.4.5.
const (
	isrQueue  = 1
	isrConfig = 2
)

// interrupt raises a vector. The ISR bits are for a driver without MSI-X, which
// polls them: there is no interrupt line.
func (t *Transport) interrupt(vector *atomic.Uint32, bit uint32) {
	if !t.msix.Enabled() {
		t.isr.Or(bit)
		return
	}
	if v := vector.Load(); v != noVector {
		t.msix.Notify(int(v))
	}
}

// ConfigChanged implements Host.
func (t *Transport) ConfigChanged() {
	t.generation.Add(1)
	if t.status.Load()&statusDriverOK != 0 {
		t.interrupt(&t.vector, isrConfig)
	}
}

// NeedsReset implements Host.
func (t *Transport) NeedsReset(err error) {
	t.broken.Store(&err)
	t.log(qverr.New(qverr.CodeOf(err), "%s stopped until it is reset: %w", t.pci.Name(), err))
	t.status.Or(statusNeedsReset)
	t.interrupt(&t.vector, isrConfig)
}

// kickQueue is a notification that came as an access instead of through the doorbell.
func (t *Transport) kickQueue(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < len(t.queues) && t.queues[i].enabled {
		t.queues[i].kick.Signal()
	}
}
