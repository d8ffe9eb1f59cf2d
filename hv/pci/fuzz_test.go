package pci_test

import (
	"encoding/binary"
	"testing"
)

// access is one access of a guest, taken from fuzz input.
type access struct {
	kind byte
	off  uint32
	data []byte // 1, 2, 4 or 8 bytes
}

const accessLen = 12

func accesses(in []byte) (list []access) {
	for ; len(in) >= accessLen; in = in[accessLen:] {
		size := 1 << (in[3] & 3)
		list = append(list, access{in[0], uint32(binary.LittleEndian.Uint16(in[1:])), append([]byte(nil), in[4:4+size]...)})
	}
	return list
}

// FuzzConfigSpace reaches configuration space by all ways at once: CF8 of any value
// and width, CFC, and ECAM.
func FuzzConfigSpace(f *testing.F) {
	f.Add([]byte("\x00\x10\x00\x02\xff\xff\xff\xff----" + "\x02\x10\x00\x02\x00\x00\x00\xd1----" + "\x02\x04\x00\x01\x00\x00------"))
	f.Add([]byte("\x01\xfc\x0c\x03\x01\x02\x03\x04\x05\x06\x07\x08" + "\x03\x3f\x00\x01\xaa\xbb------"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t)
		const at = 5 << 15 // the device in ECAM
		for _, a := range accesses(in) {
			n := len(a.data)
			switch a.kind % 6 {
			case 0: // CF8 with our device, then CFC
				r.bus.WritePort(0xcf8, []byte{byte(a.off), 5 << 3, 0, 0x80})
				r.bus.WritePort(0xcfc+uint16(a.off>>8&3), a.data[:min(n, 4)])
			case 1: // any port from CF8 on, any width
				r.bus.WritePort(0xcf8+uint16(a.off&7), a.data)
			case 2:
				r.bus.WriteECAM(at+uint64(a.off&0xfff), a.data)
			case 3: // all of the window
				r.bus.WriteECAM(uint64(a.off)<<4, a.data)
			case 4:
				r.bus.ReadPort(0xcf8+uint16(a.off&7), a.data)
			case 5:
				r.bus.ReadECAM(uint64(a.off)<<4, a.data)
			}
		}
		if r.get(0) != 0x10421af4 || r.get(8) != 0x01800001 || r.get(0x2c) != 0x00421af4 || r.get(0x34) != 0x40 || r.get(0x40)&0xff07_ffff&^(0xc000<<16) != 2<<16|0x0011 {
			t.Fatal("what is read-only has changed")
		}
		data := make([]byte, 4)
		for _, addr := range []uint64{0, 0x100000, 0xc0000000, 0xfec00000, 0xfee00000} {
			if r.bus.ReadMMIO(addr, data) {
				t.Fatalf("a BAR at %#x", addr)
			}
		}
		if err := r.bus.Reset(); err != nil {
			t.Fatal(err)
		}
		if !r.bus.ReadMMIO(tableAt, data) {
			t.Fatal("a reset does not bring the BAR back")
		}
	})
}

// FuzzMSIX has a guest write to table, pending bits and control while its device
// notifies. After each step KVM must have what the table says.
func FuzzMSIX(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x02\x00\x00\xe0\xfe----" + "\x00\x0c\x10\x02\x00\x00\x00\x00----" + "\x02\x00\x00\x00\x80-------" + "\x03\x00\x00\x00--------"))
	f.Add([]byte("\x00\x08\x10\x03\x30\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00\xc0-------" + "\x01\x00\x18\x03--------" + "\x04\x00\x00\x00--------"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t)
		for _, a := range accesses(in) {
			// The table is at 0x1000 and the pending bits at 0x1800 of a BAR of 0x4000.
			off := uint64(a.off) % (0x4000 - 8)
			switch a.kind % 5 {
			case 0:
				r.dev.WriteBAR(4, off, a.data)
			case 1:
				r.dev.ReadBAR(4, off, a.data)
			case 2:
				r.control(uint16(a.data[0]) << 8)
			case 3:
				r.dev.MSIX().Notify(int(a.off) - 2)
			case 4:
				if err := r.bus.Reset(); err != nil {
					t.Fatal(err)
				}
			}
			r.checkVectors()
		}
	})
}

// checkVectors holds what the host was told against the table.
func (r *rig) checkVectors() {
	r.t.Helper()
	control := r.get(msixCap) >> 16
	word := func(off uint64) uint32 {
		data := make([]byte, 4)
		r.dev.ReadBAR(4, off, data)
		return binary.LittleEndian.Uint32(data)
	}
	attached := 0
	for i := range uint64(3) {
		entry := 0x1000 + 16*i
		mask := word(entry + 12)
		gsi := uint32(24 + i)
		_, on := r.host.irqs[gsi]
		if want := control&enable != 0 && control&funcMask == 0 && mask == 0; on != want {
			r.t.Fatalf("vector %d: attached %v, control %#x, mask %#x", i, on, control, mask)
		}
		if !on {
			continue
		}
		attached++
		if m := r.host.routes[gsi]; m.Addr != uint64(word(entry+4))<<32|uint64(word(entry)) || m.Data != word(entry+8) {
			r.t.Fatalf("vector %d goes to %+v", i, m)
		}
	}
	if len(r.host.irqs) != attached {
		r.t.Fatalf("%d interrupts are attached, the table has %d", len(r.host.irqs), attached)
	}
}
