package machine

import (
	"quantavirt/hv/cpumodel"
	"quantavirt/hv/kvm"
)

// Leaves of CPUID that depend on the machine, and bits in them.
const (
	leafFeatures    = 0x1
	leafCache       = 0x4
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafKVMFeatures = 0x4000_0001
	leafAMDFeatures = 0x8000_0001
	leafAMDSizes    = 0x8000_0008
	leafAMDCache    = 0x8000_001d
	leafAMDTopology = 0x8000_001e
	leafAMDExtTopo  = 0x8000_0026

	bitHTT       = 1 << 28 // leaf 1 EDX
	bitExtDestID = 1 << 15 // leaf 0x40000001 EAX: MSIs have 15 bits of APIC id
	bitCmpLegacy = 1 << 1  // leaf 0x80000001 ECX

	defaultPhysBits = 36
)

// filterCPUID makes what the guest sees of what host and KVM offer, features being
// chosen already (package cpumodel): its topology.
func filterCPUID(supported []kvm.CPUIDEntry, t topology) []kvm.CPUIDEntry {
	amd := cpumodel.AMD(supported)
	list := make([]kvm.CPUIDEntry, 0, len(supported)+6)
	many := t.perSocket() > 1
	for _, e := range supported {
		switch e.Function {
		case leafTopology, leafTopologyV2:
			continue // made anew below
		case leafAMDExtTopo:
			continue // of the host; the guest finds its topology in the others
		case 0:
			e.EAX = max(e.EAX, leafTopology)
		case leafFeatures:
			e.EBX = e.EBX&0xff00 | uint32(min(t.perSocket(), 255))<<16
			e.EDX = with(e.EDX, bitHTT, many)
		case leafCache:
			e.EAX = t.sharedCache(e.EAX)
		case leafKVMFeatures:
			e.EAX = with(e.EAX, bitExtDestID, t.wide())
		case leafAMDFeatures:
			e.ECX = with(e.ECX, bitCmpLegacy, amd && many)
		case leafAMDSizes:
			if amd {
				e.ECX = e.ECX&^0xf0ff | uint32(t.perSocket()-1) | uint32(t.packageBits())<<12
			}
		case leafAMDCache:
			e.EAX = t.sharedCache(e.EAX) & 0x03ff_ffff // the field above is Intel's alone
		}
		list = append(list, e)
	}
	list = append(list, t.leaf(leafTopology)...)
	if list[0].Function == 0 && list[0].EAX >= leafTopologyV2 {
		list = append(list, t.leaf(leafTopologyV2)...)
	}
	return list
}

func with(register, bit uint32, set bool) uint32 {
	if set {
		return register | bit
	}
	return register &^ bit
}

// sharedCache sets who shares a cache: levels 1 and 2 belong to one core, higher
// ones to all of a socket, which has room for its cores.
func (t topology) sharedCache(eax uint32) uint32 {
	if eax&0x1f == 0 {
		return eax // no more caches
	}
	sharing := t.threadBits
	if eax>>5&7 >= 3 {
		sharing = t.packageBits()
	}
	return eax&0x3fff | (1<<sharing-1)<<14 | uint32(1<<min(t.coreBits, 6)-1)<<26
}

// leaf is a leaf with two levels, threads and cores, and the end. EDX gets each
// vCPU's own id.
func (t topology) leaf(function uint32) []kvm.CPUIDEntry {
	level := func(index uint32, shift, n int, kind uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: function, Index: index, Flags: kvm.CPUIDSignificantIndex,
			EAX: uint32(shift), EBX: uint32(n), ECX: index | kind<<8}
	}
	return []kvm.CPUIDEntry{
		level(0, t.threadBits, t.Threads, 1),
		level(1, t.packageBits(), t.perSocket(), 2),
		level(2, 0, 0, 0),
	}
}

// cpuidFor puts the ids of vCPU index into the list.
func (t topology) cpuidFor(list []kvm.CPUIDEntry, index int) []kvm.CPUIDEntry {
	own := make([]kvm.CPUIDEntry, len(list))
	copy(own, list)
	id := t.apicID(index)
	for i := range own {
		switch e := &own[i]; e.Function {
		case leafFeatures:
			e.EBX = e.EBX&0x00ff_ffff | id<<24
		case leafTopology, leafTopologyV2:
			e.EDX = id
		case leafAMDTopology:
			core, socket := index/t.Threads%t.Cores, index/t.perSocket()
			e.EAX, e.EBX, e.ECX = id, uint32(core)|uint32(t.Threads-1)<<8, uint32(socket)
		}
	}
	return own
}

// physBits is the width of the guest's physical addresses.
func physBits(list []kvm.CPUIDEntry) uint {
	for _, e := range list {
		if e.Function == leafAMDSizes && e.EAX&0xff != 0 {
			return min(uint(e.EAX&0xff), 52)
		}
	}
	return defaultPhysBits
}
