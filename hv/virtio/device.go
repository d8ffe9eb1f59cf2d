package virtio

// Feature bits of every device, section 6.
const (
	FeatureIndirect uint64 = 1 << 28
	FeatureEventIdx uint64 = 1 << 29
	FeatureVersion1 uint64 = 1 << 32
	FeatureReset    uint64 = 1 << 40 // a queue can be reset by itself; not offered
)

// commonFeatures are what the transport and the queues bring to every device.
const commonFeatures = FeatureIndirect | FeatureEventIdx | FeatureVersion1

// Device types, section 5.
const (
	TypeNet     = 1
	TypeBlock   = 2
	TypeConsole = 3
	TypeEntropy = 4
	TypeBalloon = 5
	TypeVsock   = 19
)

// Device is what is particular to one kind of device. The transport calls its
// methods one at a time, except ReadConfig, which may come at any time.
type Device interface {
	// Type is the device type of section 5.
	Type() uint16
	// Features are the device's own feature bits.
	Features() uint64
	// QueueSizes is the largest size of each queue; its length is their number.
	QueueSizes() []uint16
	// ReadConfig fills p from the device's configuration space at off. What lies
	// behind its end reads as zero.
	ReadConfig(off uint32, p []byte)
	// WriteConfig is a write of the guest to the configuration space.
	WriteConfig(off uint32, p []byte)
	// Activate starts the device with what the driver accepted: queues[i] is nil
	// when the driver does not use queue i. An error makes the device need a reset.
	Activate(features uint64, queues []*Queue, host Host) error
	// Deactivate stops it. When it returns, no queue is touched any more. It is
	// also called when the device was never activated.
	Deactivate()
	// Pause stops the device's work, without losing any, and returns when no guest
	// memory is touched. Resume goes on. Both come in either state.
	Pause() error
	Resume() error
}

// Preparer is a Device that makes something of the kernel which the jail forbids once
// the machine is built.
type Preparer interface {
	// Prepare is called once, before all else; kicks[i] is the event of queue i, which
	// stays the same over all resets.
	Prepare(kicks []*Event) error
	// Release undoes it after the last Deactivate, also when Prepare was not called.
	Release()
}

// VectorCounter is a Device that offers other MSI-X vectors than one for each queue and
// one for configuration changes.
type VectorCounter interface {
	// Vectors is how many there are. With fewer than queues and one, Linux has all queues
	// share the second (drivers/virtio/virtio_pci_common.c, vp_find_vqs).
	Vectors() int
}

// Host is what a device may ask of its transport.
type Host interface {
	// ConfigChanged tells the driver that the configuration space is another.
	ConfigChanged()
	// NeedsReset tells the driver that the device stopped because of err.
	NeedsReset(err error)
}

// ConfigBytes helps ReadConfig: it copies from a space of fixed bytes.
func ConfigBytes(space []byte, off uint32, p []byte) {
	clear(p)
	if uint64(off) < uint64(len(space)) {
		copy(p, space[off:])
	}
}
