package rng

import (
	"testing"

	"quantavirt/hv/virtio"
)

// FuzzFill gives buffers of any sizes: they are filled up to the bound, and not beyond.
func FuzzFill(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint32(100))
	f.Add([]byte{}, uint32(70_000))
	f.Fuzz(func(t *testing.T, sizes []byte, last uint32) {
		c := virtio.Chain{}
		total := 0
		for _, n := range append([]int{int(last % (128 << 10))}, ints(sizes)...) {
			if n > 0 {
				c.Write = append(c.Write, make([]byte, n))
				total += n
			}
		}
		n, err := New(nil).fill(&c)
		if err != nil || int(n) != min(total, maxRequest) {
			t.Fatalf("%d bytes of %d, %v", n, total, err)
		}
	})
}

func ints(b []byte) (list []int) {
	for _, v := range b {
		list = append(list, int(v))
	}
	return list
}
