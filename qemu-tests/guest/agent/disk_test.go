package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Each pattern moves data and ends in time.
func TestDiskBench(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	write(t, path, make([]byte, 1<<20))
	for _, way := range []string{"read", "write"} {
		for _, order := range []string{"random", "sequential"} {
			for _, depth := range []string{"1", "8"} {
				answer, err := diskBench([]string{"../" + path, way, order, "4096", depth, "2", "20"})
				var n, us int
				if _, serr := fmt.Sscanf(answer, "n=%d us=%d", &n, &us); err != nil || serr != nil || n < 2 || us < 20000 {
					t.Errorf("%s %s %s: %q, %v", way, order, depth, answer, err)
				}
			}
		}
	}
	if _, err := diskBench([]string{"../" + path, "read"}); err == nil {
		t.Error("too few words are taken")
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1<<20 {
		t.Errorf("the disk has grown to %v, %v", info, err)
	}
}
