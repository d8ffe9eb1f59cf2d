package fwcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"testing"

	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

const ram = 1 << 20

func newDevice(t testing.TB) (*Device, *memory.Memory) {
	t.Helper()
	mem, err := memory.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	d := New(mem)
	d.SetUint16(KeyCPUs, 3)
	for name, data := range map[string]string{"etc/one": "first file", "etc/two": "second"} {
		if err := d.AddFile(name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	return d, mem
}

func read(d *Device, key uint16, n int) []byte {
	d.WritePort(regSelector, binary.LittleEndian.AppendUint16(nil, key))
	out := make([]byte, n)
	for i := range out {
		d.ReadPort(regData, out[i:i+1])
	}
	return out
}

// dma runs one transfer with its descriptor at 0x100 and returns the control word
// afterwards.
func dma(t *testing.T, d *Device, mem *memory.Memory, control, length uint32, addr uint64) uint32 {
	t.Helper()
	desc := binary.BigEndian.AppendUint32(nil, control)
	desc = binary.BigEndian.AppendUint32(desc, length)
	desc = binary.BigEndian.AppendUint64(desc, addr)
	if err := mem.WriteAt(desc, 0x100); err != nil {
		t.Fatal(err)
	}
	d.WritePort(regDMAHigh, []byte{0, 0, 0, 0})
	d.WritePort(regDMALow, []byte{0, 0, 1, 0})
	var got [4]byte
	if err := mem.ReadAt(got[:], 0x100); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(got[:])
}

// find looks a file up as firmware does.
func find(t *testing.T, d *Device, name string) (key uint16, size int) {
	t.Helper()
	n := int(binary.BigEndian.Uint32(read(d, keyDirectory, 4)))
	dir := read(d, keyDirectory, 4+entry*n)[4:]
	for i := range n {
		e := dir[i*entry:]
		if got, _, _ := bytes.Cut(e[8:entry], []byte{0}); string(got) == name {
			return binary.BigEndian.Uint16(e[4:]), int(binary.BigEndian.Uint32(e))
		}
	}
	t.Fatalf("no file %s in the directory", name)
	return 0, 0
}

func TestBytePort(t *testing.T) {
	d, _ := newDevice(t)
	for _, tc := range []struct {
		key  uint16
		want string
	}{
		{KeySignature, "QEMU\x00\x00"},
		{KeyID, "\x03\x00\x00\x00\x00"},
		{KeyCPUs, "\x03\x00\x00"},
		{0x0d, "\x00\x00\x00\x00"},
		{0x8000, "\x00\x00"},
	} {
		if got := read(d, tc.key, len(tc.want)); string(got) != tc.want {
			t.Errorf("key %#x: %q, want %q", tc.key, got, tc.want)
		}
	}
	key, size := find(t, d, "etc/two")
	if got := read(d, key, size+1); string(got) != "second\x00" {
		t.Errorf("file: %q", got)
	}
	if err := d.AddFile("etc/two", []byte("another")); err != nil {
		t.Fatal(err)
	}
	if again, size := find(t, d, "etc/two"); again != key || string(read(d, key, size)) != "another" {
		t.Errorf("a file that is replaced keeps its key: %#x after %#x", again, key)
	}
	var sig [8]byte
	d.ReadPort(regDMAHigh, sig[:4])
	d.ReadPort(regDMALow, sig[4:])
	if string(sig[:]) != "QEMU CFG" {
		t.Errorf("DMA signature %q", sig)
	}
	d.WritePort(regSelector, []byte{0, 0})
	d.Reset()
	if got := read(d, KeySignature, 4); string(got) != "QEMU" {
		t.Errorf("after a reset: %q", got)
	}
}

func TestDMA(t *testing.T) {
	d, mem := newDevice(t)
	key, size := find(t, d, "etc/one")
	sel := uint32(key)<<16 | dmaSelect
	for _, tc := range []struct {
		name    string
		control uint32
		length  uint32
		addr    uint64
		result  uint32
		want    string // at 0x1000, which holds x before
	}{
		{"all", sel | dmaRead, uint32(size), 0x1000, 0, "first file" + "xxxx"},
		{"goes on at its end", dmaRead, 4, 0x1000, 0, "\x00\x00\x00\x00" + "xxxx"},
		{"beyond the end", sel | dmaRead, 12, 0x1000, 0, "first file\x00\x00" + "xx"},
		{"skip", sel | dmaSkip, 6, 0x1000, 0, "xxxx"},
		{"after the skip", dmaRead, 4, 0x1000, 0, "file" + "xx"},
		{"skip far", sel | dmaSkip, 0xffff_ffff, 0x1000, 0, "xxxx"},
		{"after that", dmaRead, 1, 0x1000, 0, "\x00x"},
		{"select only", sel, 4, 0x1000, 0, "xxxx"},
		{"nothing", sel | dmaRead, 0, 0xffff_ffff_ffff_ffff, 0, "xxxx"},
		{"write", sel | dmaWrite, 4, 0x1000, dmaError, "xxxx"},
		{"outside", sel | dmaRead, 4, ram - 2, dmaError, "xxxx"},
		{"far outside", sel | dmaRead, 4, 0xffff_ffff_ffff_fffe, dmaError, "xxxx"},
		{"giant", sel | dmaRead, 0xffff_ffff, 0, dmaError, "xxxx"},
	} {
		if err := mem.WriteAt(bytes.Repeat([]byte("x"), 64), 0x1000); err != nil {
			t.Fatal(err)
		}
		if got := dma(t, d, mem, tc.control, tc.length, tc.addr); got != tc.result {
			t.Errorf("%s: control %#x afterwards, want %#x", tc.name, got, tc.result)
		}
		got := make([]byte, len(tc.want))
		if err := mem.ReadAt(got, 0x1000); err != nil {
			t.Fatal(err)
		}
		if string(got) != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if key, _ := find(t, d, "etc/one"); string(read(d, key, size)) != "first file" {
		t.Error("the guest changed a file")
	}
}

func TestFilesRefuse(t *testing.T) {
	d, _ := newDevice(t)
	for _, name := range []string{"", strings.Repeat("n", nameSize)} {
		if err := d.AddFile(name, nil); !errors.Is(err, qverr.Inval) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	var err error
	for i := 0; err == nil && i < 2*maxFiles; i++ {
		err = d.AddFile("f"+strconv.Itoa(i), nil)
	}
	if !errors.Is(err, qverr.Limit) {
		t.Errorf("too many files: %v", err)
	}
}

// FuzzGuest lets a guest do to the ports what it likes: each step is an offset, a
// width and up to four bytes.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{0, 2, 0x19, 0, 1, 0x81}, uint32(2<<16|dmaSelect|dmaRead), uint32(16), uint64(0x200))
	f.Add([]byte{4, 4, 0, 0, 0, 0, 8, 4, 0, 0, 1, 0}, uint32(0x19<<16|dmaSelect|dmaRead), uint32(MaxTransfer), uint64(0xf_fff0))
	f.Add([]byte{8, 4, 0xff, 0xff, 0xff, 0xff}, uint32(dmaSkip), uint32(0xffff_ffff), uint64(0))
	f.Fuzz(func(t *testing.T, steps []byte, control, length uint32, addr uint64) {
		d, mem := newDevice(t)
		desc := binary.BigEndian.AppendUint32(nil, control)
		desc = binary.BigEndian.AppendUint32(desc, length)
		desc = binary.BigEndian.AppendUint64(desc, addr)
		if err := mem.WriteAt(desc, 0x100); err != nil {
			t.Fatal(err)
		}
		for len(steps) >= 2 {
			off, width := uint16(steps[0]), []int{1, 2, 4}[steps[1]%3]
			isRead := steps[1]&0x80 != 0
			steps = steps[2:]
			data := make([]byte, width)
			if isRead {
				d.ReadPort(off, data)
				continue
			}
			steps = steps[copy(data, steps):]
			d.WritePort(off, data)
		}
		d.WritePort(regDMAHigh, []byte{0, 0, 0, 0})
		d.WritePort(regDMALow, []byte{0, 0, 1, 0})
		if got := read(d, KeySignature, 4); string(got) != "QEMU" {
			t.Errorf("the guest changed the signature: %q", got)
		}
	})
}
