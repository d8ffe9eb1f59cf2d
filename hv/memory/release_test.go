package memory_test

import (
	"testing"

	"quantavirt/hv/memory"
)

func TestRelease(t *testing.T) {
	const size = 16 * memory.PageSize
	m, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	all, err := m.Slice(0, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ from, to, first, pages int }{
		{0, size, 0, 16},
		{0, 0, 0, 0},
		{1, 4096, 0, 0},
		{1, 8191, 0, 0},
		{1, 8192, 1, 1},
		{4095, 3*4096 + 1, 1, 2},
		{15 * 4096, size, 15, 1},
	} {
		for i := range all {
			all[i] = 0xaa
		}
		before := m.Touched()
		n, err := m.Release(all[tc.from:tc.to])
		if err != nil || n != tc.pages*memory.PageSize {
			t.Errorf("%d to %d: %d bytes, %v", tc.from, tc.to, n, err)
		}
		for i := range 16 {
			gone := all[i*4096] == 0 && all[i*4096+4095] == 0
			if want := i >= tc.first && i < tc.first+tc.pages; gone != want {
				t.Errorf("%d to %d: page %d is gone: %v", tc.from, tc.to, i, gone)
			}
		}
		// Huge pages of the host are split later, if at all; small ones go at once.
		if after := m.Touched(); after > before {
			t.Errorf("%d bytes in use before, %d after", before, after)
		}
	}
	if _, err := m.Release(make([]byte, 2*memory.PageSize)); err == nil {
		t.Error("other memory was released")
	}
}
