package machine

import (
	"math/bits"

	"quantavirt/hv/kvm"
)

// Leaves of CPUID that depend on the machine, and bits in them.
const (
	leafFeatures    = 0x1
	leafCache       = 0x4
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafAMDFeatures = 0x8000_0001
	leafAMDSizes    = 0x8000_0008
	leafAMDCache    = 0x8000_001d
	leafAMDTopology = 0x8000_001e
	leafAMDExtTopo  = 0x8000_0026

	bitVMX         = 1 << 5  // leaf 1 ECX
	bitX2APIC      = 1 << 21 // leaf 1 ECX
	bitTSCDeadline = 1 << 24 // leaf 1 ECX
	bitHypervisor  = 1 << 31 // leaf 1 ECX
	bitHTT         = 1 << 28 // leaf 1 EDX
	bitCmpLegacy   = 1 << 1  // leaf 0x80000001 ECX
	bitSVM         = 1 << 2  // leaf 0x80000001 ECX

	defaultPhysBits = 36
)

// filterCPUID makes what the guest sees of what host and KVM offer: one socket
// of count cores, no nested virtualization, and the timers that KVM emulates
// whether the host has them or not.
func filterCPUID(supported []kvm.CPUIDEntry, count int) []kvm.CPUIDEntry {
	list := make([]kvm.CPUIDEntry, 0, len(supported)+2)
	for _, e := range supported {
		switch e.Function {
		case leafTopology, leafTopologyV2:
			continue // made anew below
		case leafAMDExtTopo:
			continue // of the host; the guest finds its own in the others
		case leafFeatures:
			e.ECX = e.ECX&^bitVMX | bitX2APIC | bitTSCDeadline | bitHypervisor
			e.EBX = e.EBX&0xffff | uint32(count)<<16
			e.EDX &^= bitHTT
			if count > 1 {
				e.EDX |= bitHTT
			}
		case leafCache:
			e.EAX = coresInCache(e.EAX, count)
		case leafAMDFeatures:
			e.ECX &^= bitSVM | bitCmpLegacy
			if count > 1 {
				e.ECX |= bitCmpLegacy
			}
		case leafAMDSizes:
			e.ECX = e.ECX&^0xf0ff | uint32(count-1) | uint32(idBits(count))<<12
		case leafAMDCache:
			e.EAX = coresInCache(e.EAX, count) & 0x03ff_ffff // the field above is Intel's alone
		}
		list = append(list, e)
	}
	top := uint32(0)
	for _, e := range list {
		if e.Function == 0 {
			top = e.EAX
		}
	}
	for _, leaf := range []uint32{leafTopology, leafTopologyV2} {
		if top >= leaf {
			list = append(list, topology(leaf, count)...)
		}
	}
	return list
}

// idBits is how many bits of an APIC id number count cores.
func idBits(count int) int { return bits.Len(uint(count - 1)) }

// coresInCache sets who shares a cache: level 1 and 2 belong to one core, higher
// ones to all, and the socket has room for count cores.
func coresInCache(eax uint32, count int) uint32 {
	if eax&0x1f == 0 {
		return eax // no more caches
	}
	eax &= 0x3fff
	room := uint32(1)<<idBits(count) - 1
	if eax>>5&7 >= 3 {
		eax |= room << 14
	}
	return eax | room<<26
}

// topology is a leaf with two levels: threads (one a core) and cores. EDX gets
// each vCPU's own id.
func topology(leaf uint32, count int) []kvm.CPUIDEntry {
	level := func(index, shift, n, kind uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: leaf, Index: index, Flags: kvm.CPUIDSignificantIndex,
			EAX: shift, EBX: n, ECX: index | kind<<8}
	}
	return []kvm.CPUIDEntry{
		level(0, 0, 1, 1),
		level(1, uint32(idBits(count)), uint32(count), 2),
		level(2, 0, 0, 0),
	}
}

// cpuidFor puts the ids of vCPU id into the list.
func cpuidFor(list []kvm.CPUIDEntry, id int) []kvm.CPUIDEntry {
	own := make([]kvm.CPUIDEntry, len(list))
	copy(own, list)
	for i := range own {
		switch e := &own[i]; e.Function {
		case leafFeatures:
			e.EBX = e.EBX&0x00ff_ffff | uint32(id)<<24
		case leafTopology, leafTopologyV2:
			e.EDX = uint32(id)
		case leafAMDTopology:
			e.EAX, e.EBX, e.ECX = uint32(id), uint32(id), 0
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
