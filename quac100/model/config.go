package model

import "quantavirt/quac100/regs"

// writable holds the bits of the configuration space that a write changes, by dword offset.
var writable = map[int]uint32{
	regs.CfgCommand: uint32(regs.CommandMemory | regs.CommandBusMaster | regs.CommandINTxDisable),
	regs.CfgBAR0:    ^uint32(regs.BARSize - 1),
	regs.CfgBAR1:    ^uint32(0),
	regs.CfgMSIX:    uint32(regs.MSIXControlEnable|regs.MSIXControlMask) << 16,
	regs.CfgPMCSR:   uint32(regs.PMStateMask),
	// Device control without FLR, whose bit reads 0; link control; device and link control 2.
	regs.CfgDevControl:  0x7FFF,
	regs.CfgLinkControl: 0x01FB,
	regs.CfgPCIe + 0x28: 0x001F,
	regs.CfgPCIe + 0x30: 0x001F,
}

// resetConfig puts the configuration space into its state after a PCI reset.
func (c *Card) resetConfig() {
	cfg := c.config[:]
	clear(cfg)
	put32 := func(off int, v uint32) { le.PutUint32(cfg[off:], v) }
	put16 := func(off int, v uint16) { le.PutUint16(cfg[off:], v) }
	put32(regs.CfgID, regs.IDWord)
	put16(regs.CfgStatus, 0x0010) // capability list
	put32(regs.CfgClassRev, regs.Class<<8|regs.Revision)
	put32(regs.CfgBAR0, regs.BARFlags)
	put32(regs.CfgSubsystem, regs.SubDeviceID<<16|regs.SubVendorID)
	put32(regs.CfgCapPtr, regs.CfgMSIX)

	put32(regs.CfgMSIX, regs.CapIDMSIX|regs.CfgPM<<8|(regs.MSIXVectors-1)<<16)
	put32(regs.CfgMSIXTable, regs.MSIXTable|regs.BARIndex)
	put32(regs.CfgMSIXPBA, regs.MSIXPBA|regs.BARIndex)

	put32(regs.CfgPM, regs.CapIDPM|regs.CfgPCIe<<8|3<<16) // version 3: D0 and D3hot only
	put16(regs.CfgPMCSR, regs.PMNoSoftReset)

	put32(regs.CfgPCIe, regs.CapIDPCIe|2<<16)     // version 2, endpoint
	put32(regs.CfgDevCap, regs.DevCapFLR|1<<15|1) // role-based errors, payload 256
	put16(regs.CfgDevControl, 0x2810)             // read request 512, no snoop, relaxed order
	put32(regs.CfgLinkCap, 8<<4|4)                // x8, 16 GT/s
	put16(regs.CfgLinkStatus, 8<<4|4)             //
	put32(regs.CfgPCIe+0x2C, 0x1E)                // speeds 2.5 to 16 GT/s
	put16(regs.CfgPCIe+0x30, 4)                   // target speed
	c.msix.reset()
}

// ReadConfig fills p from the configuration space at off; what lies outside reads 0.
func (c *Card) ReadConfig(off int, p []byte) {
	clear(p)
	if off < 0 || off >= regs.CfgSize {
		return
	}
	c.lock()
	defer c.unlock()
	if c.faults.absent {
		for i := range p {
			p[i] = 0xFF
		}
		return
	}
	copy(p, c.config[off:])
}

// WriteConfig stores p to the configuration space at off. Only bits that are writable change. Setting bit 15 of the
// device control register resets the function.
func (c *Card) WriteConfig(off int, p []byte) {
	c.lock()
	defer c.unlock()
	if c.faults.absent {
		return
	}
	flr := false
	for i, b := range p {
		at := off + i
		if at < 0 || at >= regs.CfgSize {
			break
		}
		mask := byte(writable[at&^3] >> (at % 4 * 8))
		c.config[at] = c.config[at]&^mask | b&mask
		if at == regs.CfgDevControl+1 && b&byte(regs.DevControlFLR>>8) != 0 {
			flr = true
		}
	}
	if flr {
		c.resetConfig()
		c.reset(resetFLR)
		return
	}
	if c.d0() && c.command()&regs.CommandBusMaster != 0 {
		c.wakeAll()
	}
	c.msix.control = le.Uint16(c.config[regs.CfgMSIXControl:])
	c.evaluate()
}

func (c *Card) command() uint16 { return le.Uint16(c.config[regs.CfgCommand:]) }

func (c *Card) d0() bool {
	return le.Uint16(c.config[regs.CfgPMCSR:])&regs.PMStateMask != regs.PMD3hot
}

// decodes reports whether the card answers accesses to BAR0.
func (c *Card) decodes() bool {
	return c.command()&regs.CommandMemory != 0 && c.d0() && !c.faults.absent
}

// master reports whether the card may start DMA and send messages.
func (c *Card) master() bool {
	return c.command()&regs.CommandBusMaster != 0 && c.d0() && !c.faults.absent
}
