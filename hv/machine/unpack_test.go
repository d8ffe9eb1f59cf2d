package machine

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/klauspost/compress/zstd"

	"quantavirt/internal/qverr"
)

const (
	testPref = 16 << 20
	testData = 0x1000 // bytes of the test kernel's only segment
)

// testVmlinux is an ELF kernel with one segment at testPref and, behind it, tables
// of relocations: nil for none at all.
func testVmlinux(tables [][]uint32) []byte {
	le := binary.LittleEndian
	code := make([]byte, testData)
	b := testELF(code, false)
	le.PutUint64(b[24:], testPref+0x10)
	le.PutUint64(b[elfHeaderSize+24:], testPref)
	le.PutUint16(b[56:], 1)
	for _, t := range tables {
		b = le.AppendUint32(b, 0)
		for _, addr := range t {
			b = le.AppendUint32(b, addr)
		}
	}
	return b
}

// link is the address in the kernel's map of the byte at off of its segment.
func link(off uint32) uint32 { return uint32(0x8000_0000 + testPref + off) }

// packedBz is a bzImage that holds a payload.
func packedBz(payload []byte, size int) []byte {
	le := binary.LittleEndian
	payload = le.AppendUint32(bytes.Clone(payload), uint32(size))
	b := testBz()
	const at = 0x300 // in the protected-mode part
	part := make([]byte, (at+len(payload)+15)&^15)
	copy(part[at:], payload)
	le.PutUint32(b[bpSysSize:], uint32(len(part)/16))
	le.PutUint32(b[bpPayload:], at)
	le.PutUint32(b[bpPayloadLen:], uint32(len(payload)))
	return append(b[:5*512], part...)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestUnpack(t *testing.T) {
	inner := testVmlinux([][]uint32{{link(8)}, {}, {link(0)}})
	whole := gzipped(t, inner)
	for _, c := range []struct {
		name string
		file []byte
		want error
	}{
		{"gzip", packedBz(whole, len(inner)), nil},
		{"zstd", packedBz(zstandard(t, inner), len(inner)), nil},
		{"shorter than it says", packedBz(whole, len(inner)+1), qverr.Inval},
		{"longer than it says", packedBz(whole, len(inner)-1), qverr.Inval},
		{"damaged", packedBz(append(bytes.Clone(whole[:len(whole)-9]), 1, 2, 3, 4, 5, 6, 7, 8, 9), len(inner)), qverr.Inval},
		{"unknown format", packedBz([]byte("LZMA compressed"), len(inner)), qverr.Unsupported},
		{"absurd size", packedBz(whole, math.MaxUint32), qverr.Unsupported},
		{"no payload", testBz(), qverr.Unsupported},
		{"ELF", testELF([]byte{0xf4}, true), qverr.Unsupported},
		{"no kernel", []byte("#!/bin/sh\n"), qverr.Inval},
	} {
		var out bytes.Buffer
		err := Unpack(bytes.NewReader(c.file), &out)
		if c.want != nil {
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(out.Bytes(), inner) {
			t.Errorf("%s: %d bytes, %v", c.name, out.Len(), err)
		}
		if n, err := UnpackedSize(bytes.NewReader(c.file)); err != nil || n != int64(len(inner)) {
			t.Errorf("%s: size %d, %v", c.name, n, err)
		}
		if err := Unpack(bytes.NewReader(c.file), failingWriter{}); !errors.Is(err, qverr.IO) {
			t.Errorf("%s: a writer that fails: %v", c.name, err)
		}
	}
}

func TestCheckUnpacked(t *testing.T) {
	tables := [][]uint32{{link(8)}, {link(16)}, {link(0)}}
	good := testVmlinux(tables)
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name string
		file []byte
		ok   bool
	}{
		{"three tables", good, true},
		{"two tables", testVmlinux(tables[1:]), true},
		{"no tables", testVmlinux(nil), true},
		{"one table", testVmlinux(tables[2:]), false},
		{"four tables", testVmlinux(append(tables, nil)), false},
		{"no zero first", change(func(b []byte) []byte { b[len(testVmlinux(nil))] = 1; return b }), false},
		{"odd length", append(bytes.Clone(good), 0), false},
		{"cut in the segment", good[:0x1800], false},
		{"entry elsewhere", change(func(b []byte) []byte { b[27] = 9; return b }), false},
		{"empty", nil, false},
	} {
		err := CheckUnpacked(bytes.NewReader(c.file), int64(len(c.file)))
		if c.ok && err != nil || !c.ok && !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestLoadUnpacked: each value that a table names moves with the kernel's address,
// wherever in RAM the kernel is.
func TestLoadUnpacked(t *testing.T) {
	inner := testVmlinux([][]uint32{{link(8)}, {link(16)}, {link(0), link(testData - 8)}})
	le := binary.LittleEndian
	segment := inner[0x1000:]
	le.PutUint32(segment[0:], 0x8100_0000)
	le.PutUint64(segment[8:], 0xffff_ffff_8100_0000)
	le.PutUint32(segment[16:], 0x1000)
	load := func(cmdline string, initrd []byte) (*Machine, entryPoint) {
		m := loader(t, 256<<20, packedBz(gzipped(t, inner), len(inner)), initrd, cmdline)
		m.opts.Unpacked = tempFile(t, inner)
		e, err := m.loadGuest()
		if err != nil {
			t.Fatal(err)
		}
		return m, e
	}
	places, maps := map[uint64]bool{}, map[uint64]bool{}
	for range 20 {
		m, e := load("quiet", []byte("initrd!"))
		physical := e.rip - testPref - 0x10
		p := m.at(t, testPref+physical, testData)
		virtual := le.Uint64(p[8:]) - 0xffff_ffff_8100_0000
		if !e.long || e.arg != zeroPageAddr || physical%minAlign != 0 || virtual%minAlign != 0 || virtual+testPref+1<<20 > kernelMapSize {
			t.Fatalf("%+v, moved by %#x in RAM and %#x in its map", e, physical, virtual)
		}
		if le.Uint32(p[0:]) != uint32(0x8100_0000+virtual) || le.Uint32(p[16:]) != uint32(0x1000-virtual) || le.Uint32(p[testData-8:]) != uint32(virtual) {
			t.Errorf("values %#x %#x %#x, moved by %#x", le.Uint32(p[0:]), le.Uint32(p[16:]), le.Uint32(p[testData-8:]), virtual)
		}
		zero := m.at(t, zeroPageAddr, 0x1000)
		if zero[bpLoadFlags]&bzMoved == 0 {
			t.Error("the kernel is not told that it was moved")
		}
		if initrd := uint64(le.Uint32(zero[bpInitrd:])); testPref+physical+1<<20 > initrd || string(m.at(t, initrd, 7)) != "initrd!" {
			t.Errorf("initrd at %#x", initrd)
		}
		places[physical], maps[virtual] = true, true
	}
	if len(places) < 5 || len(maps) < 10 {
		t.Errorf("%d places and %d maps in 20 starts are not random", len(places), len(maps))
	}
	m, e := load("quiet nokaslr", nil)
	if p := m.at(t, testPref, testData); e.rip != testPref+0x10 || !bytes.Equal(p, segment[:testData]) {
		t.Errorf("nokaslr: entry %#x", e.rip)
	}
	if m.at(t, zeroPageAddr, 0x1000)[bpLoadFlags]&bzMoved != 0 {
		t.Error("nokaslr: the kernel is told that it was moved")
	}
}

func TestLoadUnpackedRefuses(t *testing.T) {
	inner := testVmlinux([][]uint32{{link(testData - 4)}, {link(0)}})
	bz := packedBz(gzipped(t, inner), len(inner))
	for _, c := range []struct {
		name string
		m    *Machine
		file []byte
		code qverr.Code
	}{
		{"relocation behind the kernel", loader(t, 256<<20, bz, nil, ""), testVmlinux([][]uint32{{link(0x3000)}, {link(0)}}), qverr.Inval},
		{"relocation before the kernel", loader(t, 256<<20, bz, nil, ""), testVmlinux([][]uint32{{0x8000_0010}, {link(0)}}), qverr.Inval},
		{"cut", loader(t, 256<<20, bz, nil, ""), inner[:0x1800], qverr.Inval},
		{"small memory", loader(t, 16<<20, bz, nil, ""), inner, qverr.VMStart},
	} {
		c.m.opts.Unpacked = tempFile(t, c.file)
		if _, err := c.m.loadGuest(); !errors.Is(err, c.code) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzUnpacked: whatever the bytes, no panic, and what is accepted has its tables in
// the file.
func FuzzUnpacked(f *testing.F) {
	f.Add(testVmlinux([][]uint32{{link(8)}, {link(16)}, {link(0)}}))
	f.Add(testVmlinux(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUnpacked(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Fatal(err)
			}
			return
		}
		for _, table := range u.relocs {
			if table.off+4*int64(table.count) > int64(len(b)) {
				t.Fatalf("%+v", u.relocs)
			}
		}
	})
}

// FuzzUnpack: no panic, and never more than the size that was said.
func FuzzUnpack(f *testing.F) {
	inner := testVmlinux(nil)
	f.Add(packedBz(gzipped(f, inner), len(inner)))
	f.Add(packedBz(zstandard(f, inner), len(inner)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		err := Unpack(bytes.NewReader(b), &out)
		if err != nil && !errors.Is(err, qverr.Inval) && !errors.Is(err, qverr.Unsupported) {
			t.Fatal(err)
		}
		if n, sizeErr := UnpackedSize(bytes.NewReader(b)); err == nil && (sizeErr != nil || n != int64(out.Len())) {
			t.Fatalf("%d bytes, %d announced: %v", out.Len(), n, sizeErr)
		}
	})
}
