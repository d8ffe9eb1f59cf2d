package model

import "errors"

// Host is what surrounds the card: memory and interrupts. Its methods are called from several goroutines at once, and
// never while the card's lock is held, so they may access the card's registers.
type Host interface {
	// ReadDMA fills p from memory at iova.
	ReadDMA(iova uint64, p []byte) error
	// WriteDMA stores p to memory at iova. A write of four bytes to a multiple of four must be one store that
	// becomes visible after all earlier ones.
	WriteDMA(iova uint64, p []byte) error
	// Interrupt sends the message of an MSI-X vector. It must not block.
	Interrupt(vector int)
}

// Errors of DMA that the card tells apart; a Host wraps them.
var (
	ErrUnmapped   = errors.New("address is not mapped for the card")
	ErrPermission = errors.New("access is not permitted by the mapping")
)

// nobody is the host of a card that nothing is connected to.
type nobody struct{}

func (nobody) ReadDMA(uint64, []byte) error  { return ErrUnmapped }
func (nobody) WriteDMA(uint64, []byte) error { return ErrUnmapped }
func (nobody) Interrupt(int)                 {}
