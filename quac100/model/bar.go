package model

import (
	"encoding/binary"

	"quantavirt/quac100/regs"
)

var le = binary.LittleEndian

// Read fills p from BAR0 at off, as one access of the bus. Sizes and alignment follow the specification, section 4; an
// access that is not allowed reads 0. With memory access off it reads all ones.
func (c *Card) Read(off uint64, p []byte) {
	c.lock()
	defer c.unlock()
	if !c.decodes() {
		for i := range p {
			p[i] = 0xFF
		}
		return
	}
	clear(p)
	if !aligned(off, len(p)) || off+uint64(len(p)) > regs.BARSize {
		return
	}
	if len(p) == 8 {
		le.PutUint32(p, c.read32(off))
		le.PutUint32(p[4:], c.read32(off+4))
		return
	}
	var word [4]byte
	le.PutUint32(word[:], c.read32(off&^3))
	copy(p, word[off&3:])
}

// Write stores p to BAR0 at off, as one access of the bus. Accesses that are not allowed are ignored and leave a bit in
// ERR_STATUS.
func (c *Card) Write(off uint64, p []byte) {
	c.lock()
	defer c.unlock()
	if !c.decodes() || len(p) == 0 || off >= regs.BARSize {
		return
	}
	if !aligned(off, len(p)) || len(p) < 4 || off+uint64(len(p)) > regs.BARSize {
		if c.phase != phaseReset {
			c.accessError(off)
		}
		return
	}
	for ; len(p) > 0; p, off = p[4:], off+4 {
		c.write32(off, le.Uint32(p))
	}
}

// Read32 reads one register.
func (c *Card) Read32(r regs.Reg) uint32 {
	var b [4]byte
	c.Read(uint64(r), b[:])
	return le.Uint32(b[:])
}

// Write32 writes one register.
func (c *Card) Write32(r regs.Reg, v uint32) {
	var b [4]byte
	le.PutUint32(b[:], v)
	c.Write(uint64(r), b[:])
}

// aligned reports whether an access of n bytes is one that the card knows: 1 or 2 bytes inside a dword, 4, or 8.
func aligned(off uint64, n int) bool {
	switch n {
	case 1, 2, 4, 8:
		return off%uint64(n) == 0
	}
	return false
}

func (c *Card) read32(off uint64) uint32 {
	if off >= regs.MSIXTable {
		return c.msix.read(off)
	}
	if off >= regWords*4 {
		return 0
	}
	r := regs.Reg(off)
	if c.phase == phaseReset {
		return c.readInReset(r)
	}
	if _, ok := regs.Lookup(r); !ok {
		return 0
	}
	return c.readReg(r)
}

// readInReset is all that can be read while a reset runs.
func (c *Card) readInReset(r regs.Reg) uint32 {
	switch r {
	case regs.DevID, regs.DevRev:
		info, _ := regs.Lookup(r) // also right after power-up, before the registers are filled
		return info.Reset
	case regs.DevStatus:
		return uint32(regs.StatusInitializing)
	}
	return 0
}

func (c *Card) readReg(r regs.Reg) uint32 {
	if v, ok := c.readControl(r); ok {
		return v
	}
	if v, ok := c.readEngine(r); ok {
		return v
	}
	return c.get(r)
}

func (c *Card) write32(off uint64, v uint32) {
	if off >= regs.MSIXTable {
		if c.msix.write(off, v) {
			c.evaluate()
		}
		return
	}
	if off >= regWords*4 || c.phase == phaseReset {
		return
	}
	info, ok := regs.Lookup(regs.Reg(off))
	if !ok || info.Access == regs.RO {
		return
	}
	switch info.Reg & 0xF00 {
	case regs.RegionControl:
		c.writeControl(info.Reg, v)
	case regs.RegionCommand:
		c.writeCMDQ(info, v)
	case regs.RegionResponse:
		c.writeRSPQ(info, v)
	case regs.RegionInterrupt:
		c.writeInterrupt(info.Reg, v)
	case regs.RegionDMA:
		c.writeDMA(info.Reg, v)
	case regs.RegionNTT:
		c.writeNTT(info.Reg, v)
	case regs.RegionQRNG:
		c.writeQRNG(info.Reg, v)
	case regs.RegionPerf:
		c.writePerf(info.Reg, v)
	case regs.RegionFirmware:
		c.writeFirmware(info.Reg, v)
	}
}
