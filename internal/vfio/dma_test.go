package vfio

import (
	"math/rand/v2"
	"testing"
)

// Whatever the order of frees, no two buffers overlap and at the end the whole
// space is one gap again.
func TestIOVASpace(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := newIOVASpace()
	type area struct{ iova, size uint64 }
	var held []area
	for range 5000 {
		if len(held) > 0 && rng.IntN(2) == 0 {
			i := rng.IntN(len(held))
			s.free(held[i].iova, held[i].size)
			held = append(held[:i], held[i+1:]...)
			continue
		}
		size := uint64(1+rng.IntN(64)) * pageSize
		iova, ok := s.alloc(size)
		if !ok {
			t.Fatal("the space is exhausted far too early")
		}
		for _, h := range held {
			if iova < h.iova+h.size && h.iova < iova+size {
				t.Fatalf("%#x+%#x overlaps %#x+%#x", iova, size, h.iova, h.size)
			}
		}
		held = append(held, area{iova, size})
	}
	for _, h := range held {
		s.free(h.iova, h.size)
	}
	if len(s.gaps) != 1 || s.gaps[0] != (gap{iovaBase, iovaLimit}) {
		t.Errorf("gaps after all frees: %#v", s.gaps)
	}
}

func TestIOVASpaceExhausted(t *testing.T) {
	s := newIOVASpace()
	if _, ok := s.alloc(iovaLimit - iovaBase + pageSize); ok {
		t.Error("more than the whole space was given out")
	}
	if _, ok := s.alloc(iovaLimit - iovaBase); !ok {
		t.Error("the whole space was refused")
	}
	if _, ok := s.alloc(pageSize); ok {
		t.Error("an address was given out twice")
	}
}
