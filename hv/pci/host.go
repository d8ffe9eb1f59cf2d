package pci

// Host is what the bus needs from the machine. Package machine implements it
// over KVM; tests implement it in memory.
type Host interface {
	// AllocGSI reserves an interrupt number for one MSI-X vector. It fails
	// with QV_ERR_LIMIT when there are no more.
	AllocGSI() (uint32, error)
	// RouteMSI makes gsi send msg from now on.
	RouteMSI(gsi uint32, msg Message) error
	// AttachIRQ ties the eventfd fd to gsi; a count that fd already has fires
	// at once. DetachIRQ undoes it.
	AttachIRQ(gsi uint32, fd int) error
	DetachIRQ(gsi uint32, fd int) error
	// AttachDoorbell signals the eventfd fd, without an exit to us, when the
	// guest writes size bytes (0 for any size) at the guest address addr.
	AttachDoorbell(addr uint64, size int, fd int) error
	DetachDoorbell(addr uint64, size int, fd int) error
	// MapMemory lets the guest reach mem, whole pages of this process, at the
	// guest address addr without an exit; UnmapMemory undoes it.
	MapMemory(addr uint64, mem []byte) error
	UnmapMemory(addr uint64, mem []byte) error
}

// Message is what a message-signalled interrupt writes where.
type Message struct {
	Addr uint64
	Data uint32
}

// BARHandler serves the accesses of the guest to one BAR. data has 1, 2, 4 or 8
// bytes, little-endian, and lies within the BAR; off need not be aligned. Calls
// come from all vCPUs at once. A handler serves its doorbells as well: a BAR may
// be written without the doorbell ringing by itself.
type BARHandler interface {
	ReadBAR(off uint64, data []byte)
	WriteBAR(off uint64, data []byte)
}

// ConfigHandler adds behaviour to a capability. off counts from the capability's
// first byte (its id). Calls are serialized by the bus; a handler must not access
// configuration space through the Bus.
type ConfigHandler interface {
	// ReadConfig may change data, which already has the stored bytes.
	ReadConfig(off int, data []byte)
	// WriteConfig runs after data was stored under the write mask.
	WriteConfig(off int, data []byte)
}
