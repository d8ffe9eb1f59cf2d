package quac100

import "quantavirt/quac100/regs"

// Bus is how the driver reaches a card. Register access is 32 bits wide.
type Bus interface {
	// Address names the card, e.g. its PCI address.
	Address() string
	// ReadConfig and WriteConfig access the configuration space at a byte offset.
	ReadConfig(off int64, p []byte) error
	WriteConfig(off int64, p []byte) error
	// Read32 and Write32 access a register of BAR0. A write reaches the card
	// once, and after every earlier write to memory.
	Read32(r regs.Reg) uint32
	Write32(r regs.Reg, v uint32)
	// AllocDMA returns zeroed, page-aligned memory that the card reaches at IOVA.
	AllocDMA(size int) (Buffer, error)
	// FreeDMA wipes the memory and takes it from the card.
	FreeDMA(b Buffer) error
	// Interrupts switches MSI-X on and calls handle with the number of the
	// vector, from any goroutine, whenever one of the first n fires.
	Interrupts(n int, handle func(vector int)) error
	// Reset resets the function; register state is lost, DMA memory and
	// interrupts stay connected.
	Reset() error
	// Removed is closed when the card is taken out of the machine, or the host
	// asks for it: it must be given back.
	Removed() <-chan struct{}
	// Close stops interrupts and gives the card back. After it registers read
	// as all ones, and writes are ignored.
	Close() error
}

// Buffer is memory shared with the card.
type Buffer struct {
	Bytes []byte
	IOVA  uint64
}
