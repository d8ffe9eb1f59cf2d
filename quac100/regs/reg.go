package regs

import (
	"fmt"
	"sort"
)

// Reg is the offset of a 32-bit register in BAR0. For a 64-bit quantity it names the low half; the high half follows.
type Reg uint32

// Access is how a register answers a write.
type Access uint8

// Access classes.
const (
	RO  Access = iota // writes ignored
	RW                // plain
	RWL               // as RW, but ignored while its block is enabled
	W1C               // writing 1 clears a bit
	WO                // reads 0
)

func (a Access) String() string {
	switch a {
	case RO:
		return "RO"
	case RW:
		return "RW"
	case RWL:
		return "RWL"
	case W1C:
		return "W1C"
	case WO:
		return "WO"
	}
	return fmt.Sprintf("Access(%d)", uint8(a))
}

// Info describes one register.
type Info struct {
	Reg    Reg
	Name   string
	Access Access
	Reset  uint32 // after power-up, once the state is READY, in the default model
}

// Registers returns the whole map, ordered by offset. The slice is the caller's.
func Registers() []Info { return append([]Info(nil), registers...) }

// Lookup returns what is at r; ok is false for a reserved offset.
func Lookup(r Reg) (info Info, ok bool) {
	i := sort.Search(len(registers), func(i int) bool { return registers[i].Reg >= r })
	if i < len(registers) && registers[i].Reg == r {
		return registers[i], true
	}
	return Info{}, false
}

// String is the register's name in the specification, or its offset if it is reserved.
func (r Reg) String() string {
	if i, ok := Lookup(r); ok {
		return i.Name
	}
	return fmt.Sprintf("BAR0+0x%04X", uint32(r))
}

// Regions of BAR0, 256 bytes each.
const (
	RegionControl   Reg = 0x0000
	RegionCommand   Reg = 0x0100
	RegionResponse  Reg = 0x0200
	RegionInterrupt Reg = 0x0300
	RegionDMA       Reg = 0x0400
	RegionNTT       Reg = 0x0500
	RegionQRNG      Reg = 0x0600
	RegionPerf      Reg = 0x0700
	RegionFirmware  Reg = 0x0800
	RegionSize          = 0x100

	// PairStride separates the register sets of queue pairs inside a ring region. Version 1 has pair 0 only.
	PairStride Reg = 0x40
)
