package machine

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/hv/config"
	"quantavirt/hv/kvm"
	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

// loader is a machine without KVM that can load a kernel.
func loader(t *testing.T, size int64, kernel, initrd []byte, cmdline string) *Machine {
	t.Helper()
	m := &Machine{topo: newTopology(config.Topology{}, 2), opts: Options{CPUs: 2, Cmdline: cmdline, Kernel: tempFile(t, kernel)}}
	if initrd != nil {
		m.opts.Initrd = tempFile(t, initrd)
	}
	var err error
	if m.mem, err = memory.New(size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.mem.Close() })
	m.cpuid = []kvm.CPUIDEntry{{Function: leafAMDSizes, EAX: 40}}
	return m
}

func tempFile(t *testing.T, data []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (m *Machine) at(t *testing.T, gpa, n uint64) []byte {
	t.Helper()
	b, err := m.mem.Slice(gpa, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadBz(t *testing.T) {
	kernel := testBz()
	kernel[5*512] = 0x99
	m := loader(t, 64<<20, kernel, []byte("initrd!"), "console=ttyS0")
	e, err := m.loadGuest()
	if err != nil {
		t.Fatal(err)
	}
	if e != (entryPoint{long: true, rip: 16<<20 + 0x200, arg: zeroPageAddr}) {
		t.Fatalf("%+v", e)
	}
	le := binary.LittleEndian
	p := m.at(t, zeroPageAddr, 0x1000)
	if le.Uint32(p[bpMagic:]) != bzMagic || p[bpLoader] != 0xff || le.Uint64(p[bpRSDP:]) != tablesStart {
		t.Error("zero page")
	}
	initrd := uint64(le.Uint32(p[bpInitrd:]))
	if initrd != 64<<20-0x1000 || string(m.at(t, initrd, uint64(le.Uint32(p[bpInitrdSize:])))) != "initrd!" {
		t.Errorf("initrd at %#x", initrd)
	}
	if got := string(m.at(t, uint64(le.Uint32(p[bpCmdline:])), 14)); got != "console=ttyS0\x00" {
		t.Errorf("command line %q", got)
	}
	if m.at(t, 16<<20, 1)[0] != 0x99 || string(m.at(t, tablesStart, 8)) != "RSD PTR " {
		t.Error("kernel or tables are not in place")
	}
	checkE820(t, m, p)
	if pml4 := le.Uint64(m.at(t, pageTableAddr, 8)); pml4 != pageTableAddr+0x1003 {
		t.Errorf("PML4 %#x", pml4)
	}
	if last := le.Uint64(m.at(t, pageTableAddr+6*0x1000-8, 8)); last != 0xffe00083 {
		t.Errorf("last mapping %#x", last)
	}
}

// checkE820: ascending, no overlap, RAM is what there is less what is reserved.
func checkE820(t *testing.T, m *Machine, p []byte) {
	t.Helper()
	le := binary.LittleEndian
	end, ram := uint64(0), uint64(0)
	for i := range int(p[bpE820Count]) {
		e := p[bpE820+20*i:]
		addr, size := le.Uint64(e), le.Uint64(e[8:])
		if addr < end || size == 0 {
			t.Errorf("entry %d: %#x+%#x", i, addr, size)
		}
		end = addr + size
		if le.Uint32(e[16:]) == typeRAM {
			ram += size
			m.at(t, addr, size)
		}
	}
	if want := m.mem.Size() - (highStart - ebdaStart); ram < want {
		t.Errorf("%#x bytes of RAM, want %#x", ram, want)
	}
}

func TestLoadELF(t *testing.T) {
	m := loader(t, 16<<20, testELF([]byte("code"), true), []byte("initrd!"), "quiet")
	e, err := m.loadGuest()
	if err != nil {
		t.Fatal(err)
	}
	if e != (entryPoint{rip: highStart, arg: startInfoAddr}) {
		t.Fatalf("%+v", e)
	}
	le := binary.LittleEndian
	p := m.at(t, startInfoAddr, pvhInfoSize)
	if le.Uint32(p) != pvhMagic || le.Uint32(p[12:]) != 1 || le.Uint64(p[32:]) != tablesStart {
		t.Errorf("start info % x", p)
	}
	mod := m.at(t, le.Uint64(p[16:]), pvhModSize)
	if string(m.at(t, le.Uint64(mod), le.Uint64(mod[8:]))) != "initrd!" {
		t.Error("initrd")
	}
	if n := le.Uint32(p[48:]); n != 5 || le.Uint64(m.at(t, pvhMapAddr+3*pvhMapSize, 8)) != highStart {
		t.Errorf("%d map entries", n)
	}
	if string(m.at(t, highStart, 4)) != "code" {
		t.Error("code is not in place")
	}
}

func TestLoadRefuses(t *testing.T) {
	big := testBz()
	binary.LittleEndian.PutUint32(big[bpInitSize:], 60<<20)
	for _, c := range []struct {
		name string
		m    *Machine
		code qverr.Code
	}{
		{"small memory", loader(t, 16<<20, testBz(), nil, ""), qverr.VMStart},
		{"initrd too large", loader(t, 18<<20, testBz(), make([]byte, 2<<20), ""), qverr.VMStart},
		{"kernel too large", loader(t, 64<<20, big, nil, ""), qverr.VMStart},
		{"long command line", loader(t, 64<<20, testBz(), nil, strings.Repeat("x", 2048)), qverr.Inval},
		{"no kernel", loader(t, 64<<20, []byte("#!/bin/sh\n"), nil, ""), qverr.Inval},
	} {
		if _, err := c.m.loadGuest(); !errors.Is(err, c.code) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHighMemory(t *testing.T) {
	m := loader(t, memory.GapStart+64<<20, testBz(), []byte("i"), "")
	if _, err := m.loadGuest(); err != nil {
		t.Fatal(err)
	}
	p := m.at(t, zeroPageAddr, 0x1000)
	checkE820(t, m, p)
	// The kernel takes an initrd up to initrd_addr_max only.
	if at := binary.LittleEndian.Uint32(p[bpInitrd:]); at != 0x7ffff000 {
		t.Errorf("initrd at %#x", at)
	}
	w := windows(m.mem, 40)
	if w.High.Base != 5<<30 || w.High.End != 5<<30+highSize || w.Low.Base < ecamBase+ecamSize {
		t.Errorf("%+v", w)
	}
	if w := windows(m.mem, 32); w.High.Base != w.High.End {
		t.Errorf("a window above the last address: %+v", w)
	}
}
