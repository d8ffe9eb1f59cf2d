package memory_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

func newMemory(t *testing.T, size int64) *memory.Memory {
	t.Helper()
	m, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestSliceBounds(t *testing.T) {
	const high = 64 << 20
	m := newMemory(t, memory.GapStart+high) // costs address space only
	for _, c := range []struct {
		name   string
		gpa, n uint64
		ok     bool
	}{
		{"start", 0, 16, true},
		{"empty", 0, 0, true},
		{"last low byte", memory.GapStart - 1, 1, true},
		{"over the low end", memory.GapStart - 1, 2, false},
		{"gap", memory.GapStart, 1, false},
		{"last of gap", memory.GapEnd - 1, 1, false},
		{"across into high", memory.GapEnd - 1, 2, false},
		{"first high byte", memory.GapEnd, 1, true},
		{"all high", memory.GapEnd, high, true},
		{"all high and one", memory.GapEnd, high + 1, false},
		{"end", memory.GapEnd + high, 1, false},
		{"wrapping length", 4096, math.MaxUint64, false},
		{"wrapping address", math.MaxUint64, 2, false},
		{"low into high", 0, memory.GapEnd + high, false},
	} {
		s, err := m.Slice(c.gpa, c.n)
		if (err == nil) != c.ok {
			t.Errorf("%s: Slice(%#x, %#x) = %v", c.name, c.gpa, c.n, err)
		}
		if err == nil && uint64(len(s)) != c.n {
			t.Errorf("%s: %d bytes", c.name, len(s))
		}
		if err != nil && !errors.Is(err, qverr.EPTViolation) {
			t.Errorf("%s: code %d", c.name, qverr.CodeOf(err))
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, size := range []int64{0, -4096, 4095, 4097} {
		if _, err := memory.New(size); !errors.Is(err, qverr.Inval) {
			t.Errorf("New(%d) = %v", size, err)
		}
	}
}

func TestValuesAndMemfd(t *testing.T) {
	m := newMemory(t, 1<<20)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(m.PutUint16(0x10, 0x1122))
	check(m.PutUint32(0x20, 0x33445566))
	check(m.PutUint64(0x30, 0x778899aabbccddee))
	a, _ := m.Uint16(0x10)
	b, _ := m.Uint32(0x20)
	c, _ := m.Uint64(0x30)
	if a != 0x1122 || b != 0x33445566 || c != 0x778899aabbccddee {
		t.Fatalf("%#x %#x %#x", a, b, c)
	}
	var p [4]byte
	if _, err := unix.Pread(m.FD(), p[:], 0x20); err != nil || !bytes.Equal(p[:], []byte{0x66, 0x55, 0x44, 0x33}) {
		t.Fatalf("memfd has %x (%v)", p, err)
	}
	if err := unix.Ftruncate(m.FD(), 4096); !errors.Is(err, unix.EPERM) {
		t.Fatalf("the memfd can be shrunk: %v", err)
	}
	check(m.Discard())
	if v, _ := m.Uint64(0x30); v != 0 {
		t.Fatalf("after Discard: %#x", v)
	}
}

func TestNothingIsTouched(t *testing.T) {
	m := newMemory(t, 8<<30)
	if err := m.PutUint64(5<<30, 1); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.FD(), &st); err != nil {
		t.Fatal(err)
	}
	// One page was written; huge pages may make it 2 MiB.
	if used := st.Blocks * 512; used > 2<<20 {
		t.Fatalf("%d bytes in use after one write", used)
	}
	if os.Getpagesize() != memory.PageSize {
		t.Fatalf("page size %d", os.Getpagesize())
	}
}
