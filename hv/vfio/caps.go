package vfio

import (
	"encoding/binary"
	"slices"

	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// Capabilities that the guest gets (PCI Code and ID Assignment 1.11).
const (
	capPM     = 0x01
	capMSI    = 0x05
	capVendor = 0x09
	capPCIe   = 0x10
	capMSIX   = 0x11
	capAF     = 0x13
)

// rawCap is a capability of the hardware.
type rawCap struct {
	id  byte
	off int
	max int // bytes up to the next one, or the end
}

// walk lists the capabilities by offset. The list comes from hardware, which may be
// wrong: it is followed for as many steps as there can be.
func walk(cfg []byte) (list []rawCap) {
	if binary.LittleEndian.Uint16(cfg[cfgStatus:])&statusCapList == 0 {
		return nil
	}
	seen := map[int]bool{}
	for off := int(cfg[cfgCapPointer] &^ 3); off >= 0x40 && !seen[off]; off = int(cfg[off+1] &^ 3) {
		seen[off] = true
		list = append(list, rawCap{id: cfg[off], off: off})
	}
	slices.SortFunc(list, func(a, b rawCap) int { return a.off - b.off })
	for i := range list {
		end := len(cfg)
		if i+1 < len(list) {
			end = list[i+1].off
		}
		list[i].max = end - list[i].off
	}
	return list
}

// addCapabilities gives the guest those that it may have, where they are in the
// hardware.
func (f *Function) addCapabilities(cfg []byte) error {
	add := map[byte]func(cfg []byte, c rawCap) error{
		capPM: f.addPM, capMSI: f.addMSI, capVendor: f.addVendor, capPCIe: f.addPCIe, capMSIX: f.addMSIX, capAF: f.addAF,
	}
	done := map[byte]bool{}
	for _, c := range walk(cfg) {
		make, known := add[c.id]
		if !known || done[c.id] && c.id != capVendor {
			continue
		}
		done[c.id] = true
		if err := f.pci.SkipTo(c.off); err != nil {
			return err
		}
		if err := make(cfg, c); err != nil {
			return err
		}
	}
	return nil
}

// msixCap is the place of the MSI-X structures.
type msixCap struct {
	count            int
	tableBAR, pbaBAR int
	table, pba       uint64
}

func findMSIX(cfg []byte) (msixCap, bool) {
	for _, c := range walk(cfg) {
		if c.id == capMSIX && c.max >= 12 {
			table, pba := binary.LittleEndian.Uint32(cfg[c.off+4:]), binary.LittleEndian.Uint32(cfg[c.off+8:])
			return msixCap{
				count:    int(binary.LittleEndian.Uint16(cfg[c.off+2:])&0x7ff) + 1,
				tableBAR: int(table & 7), pbaBAR: int(pba & 7), table: uint64(table &^ 7), pba: uint64(pba &^ 7),
			}, true
		}
	}
	return msixCap{}, false
}

func (f *Function) addMSIX(cfg []byte, _ rawCap) error {
	c, ok := findMSIX(cfg)
	if !ok {
		return qverr.New(qverr.Unsupported, "the MSI-X capability of %s is cut", f.hw.Address())
	}
	m, err := f.pci.AddSplitMSIX(c.count, c.tableBAR, c.table, c.pbaBAR, c.pba)
	if err != nil {
		return err
	}
	m.OnEnable(func(on bool) {
		n := 0
		if on {
			n = m.Vectors()
		}
		f.interrupts("MSI-X", n, m.EventFD, f.hw.EnableMSIX)
	})
	return nil
}

func (f *Function) addMSI(cfg []byte, c rawCap) error {
	control := binary.LittleEndian.Uint16(cfg[c.off+2:])
	is64 := control&(1<<7) != 0
	if c.max < 10 || is64 && c.max < 14 {
		return qverr.New(qverr.Unsupported, "the MSI capability of %s is cut", f.hw.Address())
	}
	m, err := f.pci.AddMSI(1<<min(control>>1&7, 5), is64)
	if err != nil {
		return err
	}
	m.OnEnable(func(n int) { f.interrupts("MSI", n, m.EventFD, f.hw.EnableMSI) })
	return nil
}

// interrupts makes the hardware signal n eventfds, or as many as the host has vectors
// for: the rest stays silent.
func (f *Function) interrupts(kind string, n int, eventfd func(int) int, enable func([]int32) error) {
	f.mu.Lock()
	f.inUse = n > 0
	f.mu.Unlock()
	fds := make([]int32, n)
	for i := range fds {
		fds[i] = int32(eventfd(i))
	}
	for {
		err := enable(fds)
		if err == nil {
			return
		}
		f.opts.Log.Warn("interrupts of a function of the machine", "kind", kind, "vectors", len(fds), "err", err)
		if len(fds) < 2 {
			return
		}
		fds = fds[:len(fds)/2]
	}
}

// addPM makes power management that has no effect: a function in D3 could not be
// reached by the guest, nor by its exit.
func (f *Function) addPM(cfg []byte, c rawCap) error {
	if c.max < 8 {
		return qverr.New(qverr.Unsupported, "the power management capability of %s is cut", f.hw.Address())
	}
	const (
		version     = 0x0007 // of PMC; no PME, no D1, no D2
		noSoftReset = 1 << 3
		stateMask   = 3
	)
	body, mask := make([]byte, 6), make([]byte, 6)
	binary.LittleEndian.PutUint16(body, binary.LittleEndian.Uint16(cfg[c.off+2:])&version)
	body[2], mask[2] = noSoftReset, stateMask
	_, err := f.pci.AddCapability(capPM, body, mask, nil)
	return err
}

// Registers of the PCI Express capability, counted from its first byte (PCI Express
// Base 5.0, 7.5.3).
const (
	expFlags      = 0x02
	expDevCap     = 0x04
	expDevControl = 0x08
	expSize       = 0x3c
	expSizeV1     = 0x14

	expVersion       = 0x000f
	expRootEndpoint  = 9 << 4
	devCapFLR        = 1 << 28
	devControlFLR    = 1 << 15
	devControlStored = 0x7fff
)

// addPCIe shows an endpoint that is integrated into the root complex, as the guest's
// bus has no ports; it has no link. Device control is stored and not acted upon: what
// the host has set fits the machine.
func (f *Function) addPCIe(cfg []byte, c rawCap) error {
	flags := binary.LittleEndian.Uint16(cfg[c.off+expFlags:])
	size := expSize
	if flags&expVersion < 2 {
		size = expSizeV1
	}
	if c.max < size {
		return qverr.New(qverr.Unsupported, "the PCI Express capability of %s is cut", f.hw.Address())
	}
	body, mask := make([]byte, size-2), make([]byte, size-2)
	le := binary.LittleEndian
	le.PutUint16(body[expFlags-2:], flags&expVersion|expRootEndpoint)
	devCap := le.Uint32(cfg[c.off+expDevCap:])
	if !f.hw.CanReset() {
		devCap &^= devCapFLR
	}
	le.PutUint32(body[expDevCap-2:], devCap)
	le.PutUint16(mask[expDevControl-2:], devControlStored)
	_, err := f.pci.AddCapability(capPCIe, body, mask, &trigger{at: expDevControl + 1, bit: devControlFLR >> 8, do: f.functionReset,
		armed: devCap&devCapFLR != 0})
	return err
}

// addAF is the function level reset of conventional PCI.
func (f *Function) addAF(cfg []byte, c rawCap) error {
	const (
		afCaps, afControl, afSize = 3, 4, 6
		afTP, afFLR               = 1, 2
	)
	if c.max < afSize {
		return qverr.New(qverr.Unsupported, "the advanced features capability of %s is cut", f.hw.Address())
	}
	can := cfg[c.off+afCaps] & (afTP | afFLR)
	if !f.hw.CanReset() {
		can = 0
	}
	body := []byte{afSize, can, 0, 0}
	_, err := f.pci.AddCapability(capAF, body, nil, &trigger{at: afControl, bit: 1, do: f.functionReset, armed: can&afFLR != 0})
	return err
}

// trigger does something when the guest writes a one to a bit that reads as zero.
type trigger struct {
	at    int // of the byte in the capability
	bit   byte
	armed bool
	do    func()
}

func (t *trigger) ReadConfig(int, []byte) {}

func (t *trigger) WriteConfig(off int, data []byte) {
	if i := t.at - off; t.armed && i >= 0 && i < len(data) && data[i]&t.bit != 0 {
		t.do()
	}
}

// addVendor shows a capability of the vendor's as it is at each read.
func (f *Function) addVendor(cfg []byte, c rawCap) error {
	size := int(cfg[c.off+2])
	if size < 3 || size > c.max {
		return nil // what it is nobody knows; the guest does without
	}
	_, err := f.pci.AddCapability(capVendor, cfg[c.off+2:c.off+size], nil, &live{f.hw, c.off})
	return err
}

// live reads the hardware.
type live struct {
	hw  Hardware
	off int // of the capability
}

func (l *live) ReadConfig(off int, data []byte) {
	// The first two bytes are the guest's own list.
	if skip := 2 - off; skip > 0 {
		if skip >= len(data) {
			return
		}
		off, data = 2, data[skip:]
	}
	now := make([]byte, len(data))
	if l.hw.ReadConfig(int64(l.off+off), now) == nil {
		copy(data, now)
	}
}

func (l *live) WriteConfig(int, []byte) {}

var _ pci.ConfigHandler = (*live)(nil)
