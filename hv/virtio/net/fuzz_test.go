package net

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio"
)

// FuzzCommand gives the control queue any bytes, cut anywhere: it answers or breaks the
// device, and what it makes of a list of addresses is bounded.
func FuzzCommand(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0}, uint16(2), uint8(1))
	f.Add([]byte{4, 0, 1, 0}, uint16(1), uint8(1))
	f.Add([]byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, uint16(9), uint8(0))
	f.Fuzz(func(t *testing.T, out []byte, cut uint16, in uint8) {
		d := &Device{taps: []*tapQueue{{fd: -1}}, pairs: make([]pair, 1), host: quietHost{}, features: ^uint64(0), active: 1}
		c := virtio.Chain{}
		for _, part := range [][]byte{out[:min(int(cut), len(out))], out[min(int(cut), len(out)):]} {
			if len(part) > 0 {
				c.Read = append(c.Read, part)
			}
		}
		if in > 0 {
			c.Write = [][]byte{make([]byte, in)}
		}
		n, err := d.command(&c)
		if err != nil && !errors.Is(err, virtio.ErrDriver) || n > 1 || n == 0 && err == nil {
			t.Fatal(n, err)
		}
		table := d.filter.table(d.mac)
		if int(table.count) > len(table.addresses) || len(d.filter.unicast)+len(d.filter.multicast) > maxCommand/macSize {
			t.Fatalf("%+v", d.filter)
		}
	})
}

type quietHost struct{}

func (quietHost) ConfigChanged()   {}
func (quietHost) NeedsReset(error) {}

// FuzzReceiveBuffers gives a receiver buffers of any sizes: a packet ends up whole in
// them or not at all.
func FuzzReceiveBuffers(f *testing.F) {
	f.Add([]byte{12, 200, 200}, uint16(300))
	f.Add([]byte{255}, uint16(255))
	f.Fuzz(func(t *testing.T, sizes []byte, n uint16) {
		var buffers [][]byte
		total := 0
		for _, s := range sizes {
			if s > 0 {
				buffers = append(buffers, make([]byte, s))
				total += int(s)
			}
		}
		putAt(buffers, headerSize-2, []byte{0xaa, 0xbb})
		at, found := 0, 0
		for _, b := range buffers {
			for _, v := range b {
				if at == 10 && v == 0xaa || at == 11 && v == 0xbb {
					found++
				}
				at++
			}
		}
		if want := min(max(total-10, 0), 2); found != want {
			t.Fatalf("%d bytes of the count are in place, not %d", found, want)
		}
		var v vector
		v.add(buffers)
		if v.size != total || len(v.list) != len(buffers) {
			t.Fatalf("%d bytes in %d buffers", v.size, len(v.list))
		}
		if len(v.list) == 0 || len(v.list) > maxVector {
			return
		}
		if _, errno := v.transfer(unix.SYS_READV, -1); errno != unix.EBADF {
			t.Fatal(errno)
		}
	})
}
