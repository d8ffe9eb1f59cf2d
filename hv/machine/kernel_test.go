package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"quantavirt/internal/qverr"
)

// testELF makes a kernel of one segment with code at 1 MiB and a PVH note.
func testELF(code []byte, note bool) []byte {
	const dataAt = 0x1000
	le := binary.LittleEndian
	b := make([]byte, dataAt)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[32:], elfHeaderSize)
	le.PutUint16(b[54:], elfSegSize)
	le.PutUint16(b[56:], 2)
	segment := func(at int, kind uint32, off, paddr, file, mem uint64) {
		le.PutUint32(b[at:], kind)
		le.PutUint64(b[at+8:], off)
		le.PutUint64(b[at+24:], paddr)
		le.PutUint64(b[at+32:], file)
		le.PutUint64(b[at+40:], mem)
	}
	segment(elfHeaderSize, segLoad, dataAt, highStart, uint64(len(code)), uint64(len(code))+0x1000)
	if note {
		segment(elfHeaderSize+elfSegSize, segNote, 0x800, 0, 24, 24)
		le.PutUint32(b[0x800:], 4)
		le.PutUint32(b[0x804:], 8)
		le.PutUint32(b[0x808:], notePVHEntry)
		copy(b[0x80c:], noteXen)
		le.PutUint64(b[0x810:], highStart)
	}
	return append(b, code...)
}

// testBz makes a bzImage whose protected-mode part is all zero.
func testBz() []byte {
	le := binary.LittleEndian
	b := make([]byte, 5*512+0x1000)
	b[bpSetupSects] = 4
	le.PutUint32(b[bpSysSize:], 0x100)
	le.PutUint16(b[bpBootFlag:], 0xaa55)
	b[bpJump], b[bpJump+1] = 0xeb, 0x66
	le.PutUint32(b[bpMagic:], bzMagic)
	le.PutUint16(b[bpVersion:], 0x20f)
	b[bpLoadFlags] = bzHigh
	le.PutUint32(b[bpInitrdMax:], 0x7fffffff)
	le.PutUint16(b[bpXLoad:], bz64)
	le.PutUint32(b[bpCmdMax:], 2047)
	le.PutUint64(b[bpPrefAddr:], 16<<20)
	le.PutUint32(b[bpInitSize:], 1<<20)
	return b
}

func TestCheckKernel(t *testing.T) {
	le := binary.LittleEndian
	change := func(b []byte, f func(b []byte)) []byte { f(b); return b }
	bz := func(f func(b []byte)) []byte { return change(testBz(), f) }
	elf := func(f func(b []byte)) []byte { return change(testELF([]byte{0xf4}, true), f) }
	for _, c := range []struct {
		name string
		file []byte
		ok   bool
	}{
		{"bzImage", testBz(), true},
		{"bzImage without its last 15 bytes", testBz()[:5*512+0x1000-15], true},
		{"elf", testELF([]byte{0xf4}, true), true},
		{"empty", nil, false},
		{"three bytes", []byte("abc"), false},
		{"text", bytes.Repeat([]byte("kernel "), 1000), false},
		{"elf without note", testELF([]byte{0xf4}, false), false},
		{"elf header only", testELF(nil, true)[:64], false},
		{"elf of 32 bits", elf(func(b []byte) { b[4] = 1 }), false},
		{"elf for arm64", elf(func(b []byte) { b[18] = 183 }), false},
		{"elf object file", elf(func(b []byte) { b[16] = 1 }), false},
		{"elf cut", testELF(make([]byte, 100), true)[:0x1032], false},
		{"elf over the zero page", elf(func(b []byte) { le.PutUint64(b[elfHeaderSize+24:], 0x7000) }), false},
		{"elf entry elsewhere", elf(func(b []byte) { le.PutUint64(b[0x810:], highStart+1) }), false},
		{"elf file size over memory size", elf(func(b []byte) { le.PutUint64(b[elfHeaderSize+40:], 0x0); le.PutUint64(b[elfHeaderSize+32:], 1) }), false},
		{"elf many segments", elf(func(b []byte) { le.PutUint16(b[56:], 65535) }), false},
		{"elf huge offset", elf(func(b []byte) { le.PutUint64(b[elfHeaderSize+8:], 1<<63) }), false},
		{"elf huge note", elf(func(b []byte) { le.PutUint64(b[elfHeaderSize+elfSegSize+32:], 1<<40) }), false},
		{"old protocol", bz(func(b []byte) { le.PutUint16(b[bpVersion:], 0x204) }), false},
		{"zImage", bz(func(b []byte) { b[bpLoadFlags] = 0 }), false},
		{"32-bit kernel", bz(func(b []byte) { le.PutUint16(b[bpXLoad:], 0) }), false},
		{"loads over the tables", bz(func(b []byte) { le.PutUint64(b[bpPrefAddr:], 0x8000) }), false},
		{"loads beyond 4 GiB", bz(func(b []byte) { le.PutUint64(b[bpPrefAddr:], 1<<40) }), false},
		{"smaller than itself", bz(func(b []byte) { le.PutUint32(b[bpInitSize:], 0x800) }), false},
		{"no code", bz(func(b []byte) { le.PutUint32(b[bpSysSize:], 0) }), false},
		{"cut", testBz()[:5*512+0x800], false},
		{"cut header", testBz()[:0x230], false},
	} {
		err := CheckKernel(bytes.NewReader(c.file))
		if c.ok && err != nil || !c.ok && !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := CheckKernel(brokenFile{}); !errors.Is(err, qverr.IO) {
		t.Errorf("broken file: %v", err)
	}
}

type brokenFile struct{}

func (brokenFile) ReadAt([]byte, int64) (int, error) { return 0, os.ErrDeadlineExceeded }

// FuzzKernel: whatever the bytes, no panic, no error without its code, and what
// is accepted lies where it may.
func FuzzKernel(f *testing.F) {
	f.Add(testBz())
	f.Add(testELF([]byte{0xf4}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKernel(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Fatalf("%v", err)
			}
			return
		}
		if k.elf != nil {
			for _, s := range k.elf.loads {
				if s.paddr < highStart || s.paddr+s.memory < s.paddr || s.fileSize > s.memory || s.off+int64(s.fileSize) > int64(len(b)) {
					t.Fatalf("%+v", s)
				}
			}
			return
		}
		if k.bz.prefAddr < highStart || k.bz.prefAddr+k.bz.initSize < k.bz.prefAddr || k.bz.kernelOff+int64(k.bz.kernelSize)-16 > int64(len(b)) {
			t.Fatalf("%+v", k.bz)
		}
	})
}

func TestReadFileShort(t *testing.T) {
	err := readFile(bytes.NewReader([]byte("abc")), make([]byte, 4), 0)
	if !errors.Is(err, qverr.IO) || !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestReadSparse(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	const size = 1 << 20
	want := make([]byte, size)
	for _, at := range []int64{0, 300 << 10, size - 5000} {
		copy(want[at:], "data")
		if _, err := f.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ off, n int64 }{{0, size}, {1, size - 1}, {100 << 10, 100 << 10}, {300<<10 + 1, 2}, {size - 4096, 4096}, {size - 1, 1}, {5, 0}} {
		got := make([]byte, r.n)
		if err := readSparse(f, got, r.off); err != nil || !bytes.Equal(got, want[r.off:r.off+r.n]) {
			t.Errorf("%d bytes at %d: %v", r.n, r.off, err)
		}
	}
	for _, off := range []int64{size - 4096, size + 4096} {
		if err := readSparse(f, make([]byte, 8192), off); !errors.Is(err, qverr.IO) {
			t.Errorf("past the end at %d: %v", off, err)
		}
	}
}
