package machine

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

func TestPinningRefused(t *testing.T) {
	if err := checkPinning([][]int{nil, {8000}}); !errors.Is(err, qverr.Pin) {
		t.Error(err)
	}
	if err := checkPinning(nil); err != nil {
		t.Error(err)
	}
}

func TestPinning(t *testing.T) {
	m, _ := newGuest(t, 2, spinIO)
	m.opts.CPU = config.CPU{Pinning: [][]int{{1}}}
	start(t, m)
	defer m.Quit()
	// A vCPU that has exited has been pinned.
	m.mu.Lock()
	v, other := m.vcpus[0], m.vcpus[1]
	m.mu.Unlock()
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	for v, want := range map[*vcpu]int{v: 1, other: 0} {
		m.mu.Lock()
		tid := v.tid
		m.mu.Unlock()
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(tid, &set); err != nil {
			t.Fatal(err)
		}
		if pinned := set.Count() == 1 && set.IsSet(1); pinned != (want == 1) {
			t.Errorf("vCPU %d runs on %d CPUs", v.id, set.Count())
		}
	}
}
