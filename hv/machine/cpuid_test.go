package machine

import (
	"testing"

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

func TestFilterCPUID(t *testing.T) {
	host := []kvm.CPUIDEntry{
		{Function: 0, EAX: 0xd},
		{Function: 1, EBX: 7<<24 | 99<<16 | 0x0800, ECX: bitVMX, EDX: bitHTT},
		{Function: 4, Index: 0, EAX: 1 | 1<<5 | 0xffff<<14},
		{Function: 4, Index: 3, EAX: 3 | 3<<5 | 0xffff<<14},
		{Function: 4, Index: 4, EAX: 0},
		{Function: leafTopology, Index: 0, EAX: 5},
		{Function: leafAMDFeatures, ECX: bitSVM},
		{Function: leafAMDSizes, EAX: 48<<8 | 40, ECX: 0x7063},
		{Function: leafAMDTopology, EAX: 9},
		{Function: leafAMDExtTopo},
	}
	list := cpuidFor(filterCPUID(host, 3), 2)
	f, _ := leaf(list, 1, 0)
	if f.EBX != 2<<24|3<<16|0x0800 || f.ECX != bitX2APIC|bitTSCDeadline|bitHypervisor || f.EDX != bitHTT {
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
	if a, _ := leaf(list, leafAMDFeatures, 0); a.ECX != bitCmpLegacy {
		t.Errorf("AMD features %#x", a.ECX)
	}
	if a, _ := leaf(list, leafAMDSizes, 0); a.ECX != 2<<12|2 {
		t.Errorf("AMD sizes %#x", a.ECX)
	}
	if a, _ := leaf(list, leafAMDTopology, 0); a.EAX != 2 {
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
	one, _ := leaf(filterCPUID(host, 1), 1, 0)
	if one.EDX != 0 || one.EBX>>16 != 1 {
		t.Errorf("one CPU: %+v", one)
	}
}
