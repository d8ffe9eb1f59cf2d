package balloon

import (
	"errors"
	"testing"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
)

// FuzzRequests sends any bytes as page numbers, as a free range and as statistics: only
// memory of the guest is released.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 2, 0, 0, 0}, uint16(3), uint32(4096))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint16(0), uint32(1))
	const size = 1 << 20
	mem, err := memory.New(size)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { mem.Close() })
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, at uint32) {
		d, err := New(mem, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := virtio.Chain{}
		for _, part := range [][]byte{data[:min(int(cut), len(data))], data[min(int(cut), len(data)):]} {
			if len(part) > 0 {
				c.Read = append(c.Read, part)
			}
		}
		if _, err := d.takePages(&c); err != nil && !errors.Is(err, virtio.ErrDriver) {
			t.Fatal(err)
		}
		parse(&c)
		if b, err := mem.Slice(uint64(at), uint64(cut)); err == nil && cut > 0 {
			c.Write = [][]byte{b}
			if _, err := d.takeRanges(&c); err != nil {
				t.Fatal(err)
			}
		}
		if s := d.State(); s.Reported > uint64(cut) || s.Inflated > uint64(len(data))/4*memory.PageSize {
			t.Fatalf("%+v", s)
		}
	})
}
