package virtio

import (
	"encoding/binary"

	"quantavirt/hv/pci"
)

// One BAR holds everything, each structure on pages of its own.
const (
	registerBAR = 0
	barSize     = 0x8000
	commonAt    = 0x0000
	isrAt       = 0x1000
	deviceAt    = 0x2000
	notifyAt    = 0x3000
	tableAt     = 0x4000
	pendingAt   = 0x6000
	partSize    = 0x1000

	commonSize       = 56
	notifyMultiplier = 4
	maxQueues        = 2*64 + 2
)

// Types of capability, section 4.1.4.
const (
	capCommon = 1
	capNotify = 2
	capISR    = 3
	capDevice = 4
	capPCI    = 5
)

func (t *Transport) addRegisters() error {
	err := t.pci.AddBAR(registerBAR, pci.BAR{Size: barSize, Is64: true, Prefetch: true, Handler: t})
	if err != nil {
		return err
	}
	// One vector for each queue and one for configuration changes: Linux then
	// gives each queue its own CPU.
	vectors := len(t.queues) + 1
	if d, ok := t.dev.(VectorCounter); ok {
		vectors = d.Vectors()
	}
	if t.msix, err = t.pci.AddMSIX(registerBAR, vectors, tableAt, pendingAt); err != nil {
		return err
	}
	for _, c := range []struct {
		kind     byte
		off, len uint32
		extra    []byte
	}{
		{capCommon, commonAt, commonSize, nil},
		{capISR, isrAt, 1, nil},
		{capDevice, deviceAt, partSize, nil},
		{capNotify, notifyAt, uint32(notifyMultiplier * len(t.queues)), []byte{notifyMultiplier, 0, 0, 0}},
	} {
		body := append(capBody(c.kind, registerBAR, c.off, c.len, len(c.extra)), c.extra...)
		if _, err := t.pci.AddCapability(pci.CapVendor, body, nil, nil); err != nil {
			return err
		}
	}
	if err := t.addWindow(); err != nil {
		return err
	}
	for i, s := range t.queues {
		// Any size: Linux writes 16 bits, others 32.
		if err := t.pci.AddDoorbell(registerBAR, notifyAt+uint64(notifyMultiplier*i), 0, s.kick.FD()); err != nil {
			return err
		}
	}
	return nil
}

// capBody is a struct virtio_pci_cap without its first two bytes.
func capBody(kind, bar byte, off, length uint32, extra int) []byte {
	b := make([]byte, 14)
	b[0], b[1], b[2] = byte(16+extra), kind, bar
	binary.LittleEndian.PutUint32(b[6:], off)
	binary.LittleEndian.PutUint32(b[10:], length)
	return b
}

// ReadBAR implements pci.BARHandler.
func (t *Transport) ReadBAR(off uint64, data []byte) {
	clear(data)
	part, at := off&^(partSize-1), uint32(off&(partSize-1))
	switch part {
	case commonAt:
		t.readCommon(at, data)
	case isrAt:
		if at == 0 {
			data[0] = byte(t.isr.Swap(0)) // reading clears it
		}
	case deviceAt:
		t.dev.ReadConfig(at, data)
	}
}

// WriteBAR implements pci.BARHandler.
func (t *Transport) WriteBAR(off uint64, data []byte) {
	part, at := off&^(partSize-1), uint32(off&(partSize-1))
	switch part {
	case commonAt:
		t.writeCommon(at, data)
	case deviceAt:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.dev.WriteConfig(at, data)
	case notifyAt:
		t.kickQueue(int(at) / notifyMultiplier)
	}
}

// Registers of the common configuration, section 4.1.4.3.
const (
	regDeviceFeatureSelect = 0
	regDeviceFeature       = 4
	regDriverFeatureSelect = 8
	regDriverFeature       = 12
	regConfigVector        = 16
	regNumQueues           = 18
	regStatus              = 20
	regGeneration          = 21
	regQueueSelect         = 22
	regQueueSize           = 24
	regQueueVector         = 26
	regQueueEnable         = 28
	regQueueNotifyOff      = 30
	regQueueDesc           = 32
	regQueueDriver         = 40
	regQueueDevice         = 48
)

func (t *Transport) readCommon(off uint32, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var r [commonSize]byte
	le := binary.LittleEndian
	le.PutUint32(r[regDeviceFeatureSelect:], t.deviceSelect)
	le.PutUint32(r[regDeviceFeature:], half(t.offered, t.deviceSelect))
	le.PutUint32(r[regDriverFeatureSelect:], t.driverSelect)
	le.PutUint32(r[regDriverFeature:], half(t.accepted, t.driverSelect))
	le.PutUint16(r[regConfigVector:], uint16(t.vector.Load()))
	le.PutUint16(r[regNumQueues:], uint16(len(t.queues)))
	r[regStatus] = byte(t.status.Load())
	r[regGeneration] = byte(t.generation.Load())
	le.PutUint16(r[regQueueSelect:], t.queueSelect)
	if int(t.queueSelect) < len(t.queues) {
		s := t.queues[t.queueSelect]
		le.PutUint16(r[regQueueSize:], s.layout.Size)
		le.PutUint16(r[regQueueVector:], uint16(s.vector.Load()))
		if s.enabled {
			r[regQueueEnable] = 1
		}
		le.PutUint16(r[regQueueNotifyOff:], t.queueSelect)
		le.PutUint64(r[regQueueDesc:], s.layout.Desc)
		le.PutUint64(r[regQueueDriver:], s.layout.Avail)
		le.PutUint64(r[regQueueDevice:], s.layout.Used)
	}
	ConfigBytes(r[:], off, data)
}

// half is 32 of the 64 feature bits.
func half(v uint64, sel uint32) uint32 {
	switch sel {
	case 0:
		return uint32(v)
	case 1:
		return uint32(v >> 32)
	}
	return 0
}

func (t *Transport) writeCommon(off uint32, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := uint64(0)
	for i, b := range data {
		v |= uint64(b) << (8 * i)
	}
	switch {
	case off >= regQueueDesc:
		t.writeQueueAddress(off, v, len(data))
	case off >= regQueueSize:
		t.writeQueue(off, v)
	case off == regDeviceFeatureSelect:
		t.deviceSelect = uint32(v)
	case off == regDriverFeatureSelect:
		t.driverSelect = uint32(v)
	case off == regDriverFeature:
		t.acceptFeatures(uint32(v))
	case off == regConfigVector:
		t.vector.Store(t.checkVector(v))
	case off == regStatus:
		t.setStatus(uint32(v) & 0xff)
	case off == regQueueSelect:
		t.queueSelect = uint16(v)
	}
}

func (t *Transport) acceptFeatures(v uint32) {
	if t.status.Load()&statusFeaturesOK != 0 || t.driverSelect > 1 {
		return
	}
	shift := 32 * t.driverSelect
	t.accepted = t.accepted&^(0xffff_ffff<<shift) | uint64(v)<<shift
}

// checkVector answers a vector that does not exist with none: section 4.1.5.1.2.
func (t *Transport) checkVector(v uint64) uint32 {
	if v&0xffff >= uint64(t.msix.Vectors()) {
		return noVector
	}
	return uint32(v & 0xffff)
}

// writeQueue sets what belongs to the selected queue. A queue that is enabled
// does not change any more.
func (t *Transport) writeQueue(off uint32, v uint64) {
	if int(t.queueSelect) >= len(t.queues) {
		return
	}
	s := t.queues[t.queueSelect]
	switch off {
	case regQueueVector:
		s.vector.Store(t.checkVector(v))
	case regQueueSize:
		size := uint16(v)
		if !s.enabled && size != 0 && size <= s.max && size&(size-1) == 0 {
			s.layout.Size = size
		}
	case regQueueEnable:
		// Only reset disables a queue.
		s.enabled = s.enabled || uint16(v) == 1 && t.status.Load()&statusDriverOK == 0
	}
}

// writeQueueAddress takes 8 bytes or either half of them.
func (t *Transport) writeQueueAddress(off uint32, v uint64, n int) {
	if int(t.queueSelect) >= len(t.queues) || t.queues[t.queueSelect].enabled || n < 4 {
		return
	}
	l := &t.queues[t.queueSelect].layout
	var field *uint64
	switch off &^ 7 {
	case regQueueDesc:
		field = &l.Desc
	case regQueueDriver:
		field = &l.Avail
	case regQueueDevice:
		field = &l.Used
	default:
		return
	}
	switch {
	case n == 8 && off&7 == 0:
		*field = v
	case n == 4 && off&7 == 0:
		*field = *field&^0xffff_ffff | v
	case n == 4 && off&7 == 4:
		*field = *field&0xffff_ffff | v<<32
	}
}
