package vm

import (
	"slices"
	"testing"

	"quantavirt/hv/vmm"
)

// TestQueues: a card with several queues gets a descriptor of its TAP for each.
func TestQueues(t *testing.T) {
	r := newRig(t)
	var got vmm.Spec
	var named []string
	r.vmm.spawned = func(s vmm.Spec) {
		got = s
		for name := range s.Files {
			named = append(named, name)
		}
	}
	r.create(with(`,"network":[{"queues":3},{}]`))
	r.good(r.Start(t.Context(), "web", ""))
	nics := got.Machine.NICs
	if len(nics) != 2 || nics[0].Queues != 3 || nics[1].Queues != 1 {
		t.Fatalf("%+v", nics)
	}
	for _, name := range []string{"nic0", "nic0/1", "nic0/2", "nic1"} {
		if !slices.Contains(named, name) {
			t.Errorf("no descriptor %s among %v", name, named)
		}
	}
	for _, name := range got.Machine.Files() {
		if !slices.Contains(named, name) {
			t.Errorf("no descriptor %s, which the machine names", name)
		}
	}
}
