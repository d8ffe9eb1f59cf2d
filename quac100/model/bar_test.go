package model

import (
	"bytes"
	"testing"

	"quantavirt/quac100/regs"
)

func TestResetValues(t *testing.T) {
	r := newRig(t, Config{Serial: 0x1122334455667788, FWBuild: 7}).ready()
	special := map[regs.Reg]uint32{
		regs.DevCaps: uint32(modelCaps), regs.FWBuild: 7, regs.SerialLo: 0x55667788, regs.SerialHi: 0x11223344,
		regs.FWAVersion: 0x01000000, regs.FWASecVer: 1, regs.MSIXControl: regs.MSIXEnabled,
	}
	running := map[regs.Reg]bool{regs.UptimeLo: true, regs.Heartbeat: true, regs.SelfTestUS: true}
	for _, info := range regs.Registers() {
		want, ok := special[info.Reg]
		if !ok {
			want = info.Reset
		}
		if got := r.Read32(info.Reg); got != want && !running[info.Reg] {
			t.Errorf("%s at %#x = %#x after power-up, want %#x", info.Name, uint32(info.Reg), got, want)
		}
	}
	if r.Read32(regs.SelfTestUS) == 0 {
		t.Error("the self-test took no time")
	}
}

// Every word of the BAR that the specification does not name reads 0 and takes no write, without an error.
func TestReservedIsQuiet(t *testing.T) {
	r := newRig(t, Config{}).ready()
	for off := regs.Reg(0); off < 0x1000; off += 4 {
		if _, ok := regs.Lookup(off); ok {
			continue
		}
		r.Write32(off, ^uint32(0))
		if got := r.Read32(off); got != 0 {
			t.Errorf("reserved %#x reads %#x", uint32(off), got)
		}
	}
	for _, info := range regs.Registers() {
		if info.Access == regs.WO {
			r.expect(info.Reg, 0)
		}
	}
	r.expect(regs.ErrStatus, 0)
}

func TestReadOnlyStays(t *testing.T) {
	r := newRig(t, Config{}).ready()
	for _, info := range regs.Registers() {
		if info.Access != regs.RO || info.Reg == regs.Heartbeat || info.Reg == regs.UptimeLo {
			continue
		}
		before := r.Read32(info.Reg)
		r.Write32(info.Reg, ^before)
		r.expect(info.Reg, before)
	}
	r.expect(regs.ErrStatus, 0)
}

func TestAccessSizes(t *testing.T) {
	r := newRig(t, Config{}).ready()
	read := func(off uint64, n int) []byte {
		p := bytes.Repeat([]byte{0xEE}, n)
		r.Read(off, p)
		return p
	}
	for _, c := range []struct {
		off  uint64
		n    int
		want []byte
	}{
		{0, 4, []byte{0xB7, 0x1D, 0x00, 0x01}},
		{0, 8, []byte{0xB7, 0x1D, 0x00, 0x01, 0x01, 0x00, 0x01, 0x00}},
		{0, 1, []byte{0xB7}}, {1, 1, []byte{0x1D}}, {3, 1, []byte{1}}, {2, 2, []byte{0, 1}},
		{1, 2, []byte{0, 0}}, {2, 4, make([]byte, 4)}, {4, 8, make([]byte, 8)}, {0, 3, make([]byte, 3)}, {0, 16, make([]byte, 16)},
		{regs.BARSize - 4, 4, make([]byte, 4)}, {regs.BARSize, 4, make([]byte, 4)},
	} {
		if got := read(c.off, c.n); !bytes.Equal(got, c.want) {
			t.Errorf("read of %d at %#x = %x, want %x", c.n, c.off, got, c.want)
		}
	}
	for _, c := range []struct {
		off uint64
		n   int
		ok  bool
	}{
		{uint64(regs.Scratch0), 4, true}, {uint64(regs.Scratch0), 8, true}, {uint64(regs.Scratch0), 1, false},
		{uint64(regs.Scratch0) + 2, 2, false}, {uint64(regs.Scratch0) + 1, 4, false}, {uint64(regs.Scratch0) - 4, 8, false},
		{uint64(regs.Scratch0), 3, false},
	} {
		r.Write32(regs.Scratch0, 0)
		r.Write32(regs.ErrStatus, ^uint32(0))
		r.Write(c.off, bytes.Repeat([]byte{0xA5}, c.n))
		scratch, errs := r.Read32(regs.Scratch0), r.Read32(regs.ErrStatus)
		if c.ok != (scratch == 0xA5A5A5A5) || c.ok != (errs == 0) || !c.ok && (scratch != 0 || errs != regs.ErrAccess.Mask()) {
			t.Errorf("write of %d at %#x: scratch %#x, errors %#x", c.n, c.off, scratch, errs)
		}
		if !c.ok && r.Read32(regs.ErrInfo)&0xFFFF != uint32(c.off) {
			t.Errorf("write of %d at %#x: ERR_INFO %#x", c.n, c.off, r.Read32(regs.ErrInfo))
		}
	}
	r.expect(regs.IntCause, 0)
}

func TestErrorRegisters(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.Reset, 1)
	r.Write32(regs.KeyZeroize, 1)
	r.expect(regs.ErrStatus, regs.ErrAccess.Mask())
	r.expect(regs.ErrInfo, uint32(regs.Reset))
	r.expect(regs.ErrCount, 2)
	r.Write32(regs.ErrStatus, 0)
	r.expect(regs.ErrStatus, regs.ErrAccess.Mask())
	r.Write32(regs.ErrStatus, regs.ErrAccess.Mask())
	r.expect(regs.ErrStatus, 0)
	r.expect(regs.ErrInfo, 0)
	r.expect(regs.ErrCount, 2)
}

func TestMemoryBitAndPower(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.Scratch1, 5)
	r.WriteConfig(regs.CfgCommand, []byte{0x04, 0})
	r.expect(regs.DevID, regs.GoneWord)
	r.Write32(regs.Scratch1, 6)
	r.WriteConfig(regs.CfgCommand, []byte{0x06, 0})
	r.expect(regs.Scratch1, 5)
	r.WriteConfig(regs.CfgPMCSR, []byte{3, 0})
	r.expect(regs.DevID, regs.GoneWord)
	r.WriteConfig(regs.CfgPMCSR, []byte{0, 0})
	r.expect(regs.Scratch1, 5) // no soft reset between D3hot and D0
}

func TestConfigSpace(t *testing.T) {
	r := newRig(t, Config{})
	var cfg [regs.CfgSize]byte
	r.PowerCycle()
	r.ReadConfig(0, cfg[:])
	u16 := func(off int) uint16 { return le.Uint16(cfg[off:]) }
	u32 := func(off int) uint32 { return le.Uint32(cfg[off:]) }
	for _, c := range []struct {
		what      string
		got, want uint32
	}{
		{"id", u32(0), 0x01001DB7}, {"command", uint32(u16(4)), 0}, {"status", uint32(u16(6)), 0x10}, {"class", u32(8), 0x10800001},
		{"BAR0", u32(0x10), 0xC}, {"BAR1", u32(0x14), 0}, {"subsystem", u32(0x2C), 0x01001DB7}, {"ROM", u32(0x30), 0},
		{"first capability", uint32(cfg[0x34]), 0x40}, {"interrupt", u32(0x3C), 0},
		{"MSI-X", u32(0x40), 0x000F5011}, {"table", u32(0x44), 0xFE00}, {"PBA", u32(0x48), 0xFF00},
		{"PM", u32(0x50), 0x00036001}, {"PMCSR", uint32(u16(0x54)), 8},
		{"PCIe", u32(0x60), 0x00020010}, {"FLR", u32(0x64) >> 28, 1}, {"payload", u32(0x64) & 7, 1},
		{"link cap", u32(0x6C) & 0x3FF, 0x84}, {"link status", uint32(u16(0x72)), 0x84}, {"extended list", u32(0x100), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s = %#x, want %#x", c.what, c.got, c.want)
		}
	}
	for off := 0; off < regs.CfgLegacySize; off += 4 {
		if off == regs.CfgDevControl {
			continue
		}
		r.WriteConfig(off, []byte{0xFF, 0xFF, 0xFF, 0xFF})
	}
	r.ReadConfig(0, cfg[:])
	for _, c := range []struct {
		what      string
		got, want uint32
	}{
		{"id", u32(0), 0x01001DB7}, {"command", uint32(u16(4)), 0x406}, {"BAR0 sizing", u32(0x10), 0xFFFF000C}, {"BAR1 sizing", u32(0x14), 0xFFFFFFFF},
		{"BAR2", u32(0x18), 0}, {"ROM", u32(0x30), 0}, {"MSI-X", u32(0x40), 0xC00F5011}, {"PMCSR", uint32(u16(0x54)), 0xB},
	} {
		if c.got != c.want {
			t.Errorf("after ones everywhere %s = %#x, want %#x", c.what, c.got, c.want)
		}
	}
	r.ReadConfig(regs.CfgSize-2, cfg[:4]) // the end, and beyond it
	r.WriteConfig(regs.CfgSize-2, cfg[:4])
	r.ReadConfig(-1, cfg[:4])
	r.ReadConfig(regs.CfgSize, cfg[:4])
}

func TestFLRClearsConfigAtOnce(t *testing.T) {
	r := newRig(t, Config{}).ready()
	r.Write32(regs.Scratch1, 9)
	r.WriteConfig(regs.CfgDevControl, []byte{0x10, 0x80})
	var b [2]byte
	r.ReadConfig(regs.CfgCommand, b[:])
	if b != [2]byte{} {
		t.Errorf("command = %x right after the FLR", b)
	}
	r.pciOn()
	r.ready()
	r.expect(regs.Scratch1, 0)
	r.expect(regs.ResetCause, regs.CauseFLR)
	r.ReadConfig(regs.CfgDevControl, b[:])
	if le.Uint16(b[:])&regs.DevControlFLR != 0 {
		t.Error("the FLR bit reads 1")
	}
}
