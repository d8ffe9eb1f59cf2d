package machine

import (
	"testing"

	"quantavirt/hv/config"
	"quantavirt/hv/kvm"
)

func leaf(list []kvm.CPUIDEntry, function, index uint32) (e kvm.CPUIDEntry, found bool) {
	for _, e := range list {
		if e.Function == function && e.Index == index {
			return e, true
		}
	}
	return e, false
}

// hostLeaves are what a made-up host of the vendor offers.
func hostLeaves(vendor uint32) []kvm.CPUIDEntry {
	return []kvm.CPUIDEntry{
		{Function: 0, EAX: 0xd, EBX: vendor},
		{Function: 1, EBX: 7<<24 | 99<<16 | 0x0800, EDX: bitHTT},
		{Function: 4, Index: 0, EAX: 1 | 1<<5 | 0xffff<<14},
		{Function: 4, Index: 3, EAX: 3 | 3<<5 | 0xffff<<14},
		{Function: 4, Index: 4, EAX: 0},
		{Function: leafTopology, Index: 0, EAX: 5},
		{Function: leafKVMFeatures, EAX: 1 << 3},
		{Function: leafAMDFeatures, ECX: bitCmpLegacy},
		{Function: leafAMDSizes, EAX: 48<<8 | 40, ECX: 0x7063},
		{Function: leafAMDCache, Index: 3, EAX: 3 | 3<<5 | 0xffff<<14},
		{Function: leafAMDTopology, EAX: 9},
		{Function: leafAMDExtTopo},
	}
}

const (
	amd   = 0x68747541
	intel = 0x756e6547
)

func TestFilterCPUID(t *testing.T) {
	topo := newTopology(config.Topology{}, 3)
	list := topo.cpuidFor(filterCPUID(hostLeaves(amd), topo), 2)
	f, _ := leaf(list, 1, 0)
	if f.EBX != 2<<24|3<<16|0x0800 || f.EDX != bitHTT {
		t.Errorf("leaf 1: %+v", f)
	}
	if l1, _ := leaf(list, 4, 0); l1.EAX != 1|1<<5|3<<26 {
		t.Errorf("level 1 cache %#x", l1.EAX)
	}
	if l3, _ := leaf(list, 4, 3); l3.EAX != 3|3<<5|3<<14|3<<26 {
		t.Errorf("level 3 cache %#x", l3.EAX)
	}
	if x, ok := leaf(list, leafTopology, 1); !ok || x.EAX != 2 || x.EBX != 3 || x.ECX != 1|2<<8 || x.EDX != 2 {
		t.Errorf("topology %+v", x)
	}
	if a, _ := leaf(list, leafAMDFeatures, 0); a.ECX&bitCmpLegacy == 0 {
		t.Errorf("AMD features %#x", a.ECX)
	}
	if a, _ := leaf(list, leafAMDSizes, 0); a.ECX != 2<<12|2 {
		t.Errorf("AMD sizes %#x", a.ECX)
	}
	if a, _ := leaf(list, leafAMDTopology, 0); a.EAX != 2 || a.EBX != 2 {
		t.Errorf("AMD topology %+v", a)
	}
	if _, ok := leaf(list, leafAMDExtTopo, 0); ok {
		t.Error("the host's extended topology shows")
	}
	if _, ok := leaf(list, leafTopologyV2, 0); ok {
		t.Error("a leaf above the highest")
	}
	if n := physBits(list); n != 40 {
		t.Errorf("%d address bits", n)
	}
	one, _ := leaf(filterCPUID(hostLeaves(amd), newTopology(config.Topology{}, 1)), 1, 0)
	if one.EDX != 0 || one.EBX>>16 != 1 {
		t.Errorf("one CPU: %+v", one)
	}
}

func TestTopology(t *testing.T) {
	for _, c := range []struct {
		t      config.Topology
		count  int
		last   uint32 // APIC id of the last vCPU
		levels [2]int // shifts of leaf 0xb
	}{
		{config.Topology{}, 1, 0, [2]int{0, 0}},
		{config.Topology{}, 3, 2, [2]int{0, 2}},
		{config.Topology{Sockets: 2, Cores: 2, Threads: 2}, 8, 7, [2]int{1, 2}},
		{config.Topology{Sockets: 2, Cores: 3, Threads: 2}, 12, 13, [2]int{1, 3}},
		{config.Topology{Sockets: 8, Cores: 32, Threads: 1}, 256, 255, [2]int{0, 5}},
		{config.Topology{Sockets: 2, Cores: 65, Threads: 1}, 130, 1<<7 | 64, [2]int{0, 7}},
	} {
		topo := newTopology(c.t, c.count)
		if got := topo.apicID(c.count - 1); got != c.last {
			t.Errorf("%+v: the last APIC id is %d, want %d", c.t, got, c.last)
		}
		seen := map[uint32]bool{}
		for i, id := range topo.apicIDs() {
			if seen[id] || i > 0 && id <= topo.apicID(i-1) {
				t.Errorf("%+v: APIC id %d of vCPU %d", c.t, id, i)
			}
			seen[id] = true
		}
		list := topo.cpuidFor(filterCPUID(hostLeaves(intel), topo), c.count-1)
		for i, want := range c.levels {
			if e, ok := leaf(list, leafTopology, uint32(i)); !ok || int(e.EAX) != want || e.EDX != c.last {
				t.Errorf("%+v: level %d: %+v", c.t, i, e)
			}
		}
		if e, _ := leaf(list, leafKVMFeatures, 0); e.EAX&bitExtDestID != 0 != topo.wide() {
			t.Errorf("%+v: KVM's features %#x", c.t, e.EAX)
		}
	}
}

func TestWideDestination(t *testing.T) {
	for addr, want := range map[uint64]uint64{
		0xfee0_1000:                0xfee0_1000,
		0xfeef_f000 | 1<<5:         0xfeef_f000 | 1<<40, // APIC id 0x1ff
		0xfee0_0000 | 0x7f<<5:      0xfee0_0000 | 0x7f<<40,
		0xfee0_0000 | 1<<5 | 1<<4:  0xfee0_0000 | 1<<5 | 1<<4,
		1<<40 | 0xfee0_0000 | 1<<5: 1<<40 | 0xfee0_0000 | 1<<5,
	} {
		if got := wideDestination(addr); got != want {
			t.Errorf("%#x: %#x, want %#x", addr, got, want)
		}
	}
}
