package flat

// Device is a virtio-pci function in a slot, whose BAR a kernel puts where 32-bit code
// reaches it, and one queue of it.
type Device struct {
	k     *Kernel
	slot  uint32
	queue uint16
	size  uint16
	// Ring is where the queue is: descriptors, available and used ring, a page each.
	Ring uint32
	idx  uint16 // of the available ring
}

// Registers of the BAR, virtio 1.2 section 4.1.4.
const (
	RegFeatureSelect = 0x08
	RegFeature       = 0x0c
	RegNumQueues     = 0x12
	RegStatus        = 0x14
	RegQueueSelect   = 0x16
	RegQueueSize     = 0x18
	RegQueueVector   = 0x1a
	RegQueueEnable   = 0x1c
	RegQueueDesc     = 0x20
	RegQueueDriver   = 0x28
	RegQueueDevice   = 0x30
	RegNotify        = 0x3000
	RegTable         = 0x4000 // of MSI-X

	// NeedsReset is the status bit of a device that is broken.
	NeedsReset = 0x40

	// DescNext, DescWrite and DescIndirect are flags of a descriptor.
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4

	ecam = 0xc000_0000
	bars = 0xd000_0000
)

// Device speaks of the function in a slot and of its queue of size entries at ring.
func (k *Kernel) Device(slot uint32, queue, size uint16, ring uint32) *Device {
	return &Device{k: k, slot: slot, queue: queue, size: size, Ring: ring}
}

// Config is the address of a register in configuration space.
func (d *Device) Config(off uint32) uint32 { return ecam + d.slot<<15 + off }

// BAR is the address of a register.
func (d *Device) BAR(off uint32) uint32 { return bars + d.slot<<16 + off }

// Place puts the BAR where it is looked for, and switches decoding on.
func (d *Device) Place() *Device {
	d.k.Write32(d.Config(0x10), d.BAR(0)).Write32(d.Config(0x14), 0).Write16(d.Config(4), 6)
	return d
}

// Reset writes 0 to the status.
func (d *Device) Reset() *Device {
	d.k.Write8(d.BAR(RegStatus), 0)
	return d
}

// Start resets the device and brings it to DRIVER_OK with the queue at desc, in halves,
// and its rings empty.
func (d *Device) Start(desc uint64) *Device {
	d.Reset()
	d.idx = 0
	k, at := d.k, d.BAR
	k.Write8(at(RegStatus), 3)
	k.Write32(at(RegFeatureSelect), 0).Write32(at(RegFeature), 1<<28) // indirect descriptors
	k.Write32(at(RegFeatureSelect), 1).Write32(at(RegFeature), 1)     // VERSION_1
	k.Write8(at(RegStatus), 11)
	k.Write32(d.Ring+0x1000, 0).Write32(d.Ring+0x2000, 0)
	k.Write16(at(RegQueueSelect), d.queue).Write16(at(RegQueueSize), d.size).Write16(at(RegQueueVector), 0)
	k.Write32(at(RegQueueDesc), uint32(desc)).Write32(at(RegQueueDesc+4), uint32(desc>>32))
	k.Write32(at(RegQueueDriver), d.Ring+0x1000).Write32(at(RegQueueDriver+4), 0)
	k.Write32(at(RegQueueDevice), d.Ring+0x2000).Write32(at(RegQueueDevice+4), 0)
	k.Write16(at(RegQueueEnable), 1).Write8(at(RegStatus), 15)
	return d
}

// Descriptor writes descriptor i of a table.
func (d *Device) Descriptor(table uint32, i uint32, addr uint64, length uint32, flags, next uint16) *Device {
	at := table + 16*i
	d.k.Write32(at, uint32(addr)).Write32(at+4, uint32(addr>>32)).Write32(at+8, length).Write32(at+12, uint32(next)<<16|uint32(flags))
	return d
}

// Add makes the chain that begins with head available, without a kick.
func (d *Device) Add(head uint16) *Device {
	d.k.Write16(d.Ring+0x1000+4+2*uint32(d.idx%d.size), head)
	d.idx++
	return d.SetIndex(d.idx)
}

// SetIndex writes the index of the available ring.
func (d *Device) SetIndex(idx uint16) *Device {
	d.k.Write16(d.Ring+0x1000+2, idx)
	return d
}

// Kick notifies the queue.
func (d *Device) Kick() *Device {
	d.k.Write16(d.BAR(RegNotify+4*uint32(d.queue)), d.queue)
	return d
}

// AwaitUsed waits until the used ring has an index with one of bits.
func (d *Device) AwaitUsed(bits uint16) *Device {
	d.k.Wait(d.Ring+0x2000, uint32(bits)<<16)
	return d
}

// AwaitBroken waits until the device says that it needs a reset.
func (d *Device) AwaitBroken() *Device {
	d.k.Wait(d.BAR(RegStatus), NeedsReset)
	return d
}
