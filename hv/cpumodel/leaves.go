package cpumodel

import "quantavirt/hv/kvm"

// Leaves that describe a feature further.
const (
	leafPMU    = 0xa
	leafXSave  = 0xd
	leafSGX    = 0x12
	leafTrace  = 0x14
	leafTiles  = 0x1d
	leafTMUL   = 0x1e
	leafSVM    = 0x8000_000a
	leafPerfV2 = 0x8000_0022
)

// components of the extended state (leaf 0xd) beyond x87 and SSE, and their flags.
var components = []struct {
	flag string
	bits uint64
}{
	{"avx", 1 << 2}, {"mpx", 1<<3 | 1<<4}, {"avx512f", 1<<5 | 1<<6 | 1<<7}, {"pku", 1 << 9}, {"amx_tile", 1<<17 | 1<<18},
}

// dropLeaves takes away what describes hidden features: their leaves, and their
// state in leaf 0xd, by which KVM limits XCR0. A baseline has no performance
// counters, as they differ from host to host.
func dropLeaves(list []kvm.CPUIDEntry, want set, baseline bool) []kvm.CPUIDEntry {
	hidden := uint64(0)
	for _, c := range components {
		if !want[c.flag] {
			hidden |= c.bits
		}
	}
	left := list[:0]
	for _, e := range list {
		switch e.Function {
		case leafXSave:
			if !want["xsave"] || e.Index >= 2 && e.Index < 64 && hidden>>e.Index&1 != 0 {
				continue
			}
		case leafSVM:
			if !want["svm"] {
				continue
			}
		case leafSGX:
			if !want["sgx"] {
				continue
			}
		case leafTrace:
			if !want["intel_pt"] {
				continue
			}
		case leafTiles, leafTMUL:
			if !want["amx_tile"] {
				continue
			}
		case leafPMU, leafPerfV2:
			if baseline {
				continue
			}
		}
		left = append(left, e)
	}
	shrinkXSave(left, hidden, want)
	return left
}

// shrinkXSave takes components out of leaf 0xd and makes its sizes fit: the legacy
// area and header are 576 bytes, and each component of XCR0 tells its place.
func shrinkXSave(list []kvm.CPUIDEntry, hidden uint64, want set) {
	main, more := find(list, leafXSave, 0), find(list, leafXSave, 1)
	if main == nil {
		return
	}
	main.EAX &^= uint32(hidden)
	main.EDX &^= uint32(hidden >> 32)
	size := uint32(576)
	for _, e := range list {
		if e.Function == leafXSave && e.Index >= 2 && e.Index < 64 && (uint64(main.EDX)<<32|uint64(main.EAX))>>e.Index&1 != 0 {
			size = max(size, e.EAX+e.EBX)
		}
	}
	main.ECX = size
	if more != nil && !want["xsaves"] {
		more.EBX, more.ECX, more.EDX = 0, 0, 0
	}
}
