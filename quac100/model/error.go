package model

import (
	"errors"

	"quantavirt/quac100/regs"
)

var (
	errClosed   = errors.New("the card is closed")
	errNotReady = errors.New("the card is in its error state")
	errDropped  = errors.New("the command was dropped")
)

// fail latches an error. where is the register offset or opcode concerned, addr a bus address or 0.
func (c *Card) fail(bit regs.ErrBit, where uint16, detail regs.Detail, addr uint64) {
	if c.get(regs.ErrStatus) == 0 {
		c.set(regs.ErrInfo, uint32(detail)<<24|uint32(bit)<<16|uint32(where))
		c.set64(regs.ErrAddrLo, addr)
	}
	c.set(regs.ErrStatus, c.get(regs.ErrStatus)|bit.Mask())
	c.inc(regs.ErrCount)
	switch {
	case bit == regs.ErrFatal:
		c.raise(regs.CauseFatal)
	case bit >= regs.ErrDMA && bit <= regs.ErrWatchdog:
		c.raise(regs.CauseError)
	}
}

// accessError notes an illegal register access; it raises nothing.
func (c *Card) accessError(off uint64) { c.fail(regs.ErrAccess, uint16(off), 0, 0) }

func (c *Card) clearErrors(bits uint32) {
	v := c.get(regs.ErrStatus) &^ bits
	c.set(regs.ErrStatus, v)
	if v == 0 {
		c.set(regs.ErrInfo, 0)
		c.set64(regs.ErrAddrLo, 0)
	}
}
