//go:build !race

package net_test

import "testing"

// TestNoAllocation: moving packets leaves nothing for the collector.
func TestNoAllocation(t *testing.T) {
	for name, run := range map[string]func(*testing.B){"transmit": BenchmarkTransmit, "receive": BenchmarkReceive} {
		if r := testing.Benchmark(run); r.N < 100 || r.AllocsPerOp() != 0 {
			t.Errorf("%s: %v, %v", name, r, r.MemString())
		}
	}
}
