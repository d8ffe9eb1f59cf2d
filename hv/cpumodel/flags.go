package cpumodel

import (
	"slices"
	"strings"

	"quantavirt/hv/kvm"
)

// register is one of the four that a leaf of CPUID fills.
type register int

const (
	eax register = iota
	ebx
	ecx
	edx
)

// word is a register of feature bits with their names from bit 0 on, "-" for bits
// without one (Linux, arch/x86/include/asm/cpufeatures.h).
type word struct {
	function, index uint32
	reg             register
	names           string
}

var words = []word{
	{0x1, 0, edx, `fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov
		pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`},
	{0x1, 0, ecx, `pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm
		- pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor`},
	{0x6, 0, eax, `- - arat`},
	{0x7, 0, ebx, `fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a
		avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`},
	{0x7, 0, ecx, `prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq -
		la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks`},
	{0x7, 0, edx, `- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - tsx_force_abort serialize hybrid_cpu
		tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd`},
	{0x7, 1, eax, `sha512 sm3 sm4 - avx_vnni avx512_bf16 lass cmpccxadd - - fzrm fsrs fsrc - - -
		- fred lkgs wrmsrns - amx_fp16 - avx_ifma - - lam`},
	{0x7, 1, edx, `- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchiti`},
	{0x7, 2, edx, `intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no`},
	{0xd, 1, eax, `xsaveopt xsavec xgetbv1 xsaves xfd`},
	{0x8000_0001, 0, edx, `- - - - - - - - - - - syscall - - - -
		- - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow`},
	{0x8000_0001, 0, ecx, `lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp
		fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx`},
	{0x8000_0007, 0, edx, `- - - - - - - - constant_tsc`},
	{0x8000_0008, 0, ebx, `clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp
		- amd_stibp_always_on - - - - - - amd_ssbd virt_ssbd amd_ssb_no - amd_psfd btc_no`},
	{0x8000_0021, 0, eax, `no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr - - - - - -
		- - - - - - - - - - - sbpb ibpb_brtype srso_no`},
}

// Names that others than Linux give to flags.
var aliases = map[string]string{
	"sse3": "pni", "lzcnt": "abm", "invtsc": "constant_tsc", "sha": "sha_ni", "i64": "lm", "pclmul": "pclmulqdq",
	"tsc_deadline": "tsc_deadline_timer", "intel_stibp": "stibp", "spec_ctrl_ssbd": "ssbd", "lahf": "lahf_lm",
}

// amdCopies are the bits of leaf 0x80000001 EDX that on AMD repeat those of leaf 1.
const amdCopies = 0x0183_f3ff

// bit is where a flag is.
type bit struct {
	word int
	mask uint32
}

// bits finds a flag by its name.
var bits = func() map[string]bit {
	all := map[string]bit{}
	for i, w := range words {
		for n, name := range strings.Fields(w.names) {
			if name != "-" {
				all[name] = bit{i, 1 << n}
			}
		}
	}
	return all
}()

// set is a set of flags by name.
type set map[string]bool

func (s set) add(names string) set {
	for name := range strings.FieldsSeq(names) {
		s[name] = true
	}
	return s
}

func (s set) sorted() []string {
	var list []string
	for name, on := range s {
		if on {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// needs are flags that a flag is of no use without: hiding one of the second hides
// the first. They are the dependencies of Linux (arch/x86/kernel/cpu/cpuid-deps.c).
var needs = map[string]string{
	"avx": "xsave", "pku": "xsave", "mpx": "xsave", "xsaveopt": "xsave", "xsavec": "xsave", "xgetbv1": "xsavec", "xsaves": "xsavec", "xfd": "xsaves",
	"osxsave": "xsave", "avx2": "avx", "f16c": "avx", "fma": "avx", "fma4": "avx", "xop": "avx", "vaes": "avx", "vpclmulqdq": "avx",
	"avx_vnni": "avx2", "avx_ifma": "avx2", "avx_vnni_int8": "avx2", "avx_ne_convert": "avx2", "avx_vnni_int16": "avx2",
	"avx512f": "avx2", "avx512dq": "avx512f", "avx512ifma": "avx512f", "avx512pf": "avx512f", "avx512er": "avx512f", "avx512cd": "avx512f",
	"avx512bw": "avx512f", "avx512vl": "avx512f", "avx512vbmi": "avx512f", "avx512_vbmi2": "avx512f", "avx512_vnni": "avx512f",
	"avx512_bitalg": "avx512f", "avx512_vpopcntdq": "avx512f", "avx512_4vnniw": "avx512f", "avx512_4fmaps": "avx512f",
	"avx512_vp2intersect": "avx512f", "avx512_fp16": "avx512bw", "avx512_bf16": "avx512f",
	"amx_tile": "xfd", "amx_bf16": "amx_tile", "amx_int8": "amx_tile", "amx_fp16": "amx_tile", "amx_complex": "amx_tile",
	"sse2": "sse", "pni": "sse2", "ssse3": "pni", "sse4_1": "ssse3", "sse4_2": "sse4_1", "sse4a": "pni", "aes": "sse2", "pclmulqdq": "sse2", "sha_ni": "sse2", "gfni": "sse2",
	"3dnowext": "3dnow", "ospke": "pku", "sgx_lc": "sgx", "tsc_deadline_timer": "apic", "x2apic": "apic",
}

// parent is the flag that name needs, "" for none.
func parent(name string) string { return needs[name] }

// dependsOn tells whether name needs other, directly or not.
func dependsOn(name, other string) bool {
	for p := parent(name); p != ""; p = parent(p) {
		if p == other {
			return true
		}
	}
	return false
}

func value(e *kvm.CPUIDEntry, r register) *uint32 {
	return [...]*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX}[r]
}

// find is the leaf of w, nil when list has none.
func find(list []kvm.CPUIDEntry, function, index uint32) *kvm.CPUIDEntry {
	for i := range list {
		if list[i].Function == function && list[i].Index == index {
			return &list[i]
		}
	}
	return nil
}

// flagsOf are the flags that list shows.
func flagsOf(list []kvm.CPUIDEntry) set {
	have := set{}
	for name, b := range bits {
		w := words[b.word]
		if e := find(list, w.function, w.index); e != nil && *value(e, w.reg)&b.mask != 0 {
			have[name] = true
		}
	}
	return have
}

// Flags lists by name what the leaves of a host offer to a guest.
func Flags(list []kvm.CPUIDEntry) []string { return offered(list).sorted() }

// offered is what list has and what KVM emulates whether the host has it or not.
func offered(list []kvm.CPUIDEntry) set {
	return flagsOf(list).add("x2apic tsc_deadline_timer hypervisor")
}

// AMD tells whether the leaves are of a CPU by AMD, or by Hygon after its plans.
func AMD(list []kvm.CPUIDEntry) bool { return vendor(list) == vendorAMD }

func vendor(list []kvm.CPUIDEntry) string {
	e := find(list, 0, 0)
	switch {
	case e == nil:
		return ""
	case e.EBX == 0x68747541 || e.EBX == 0x6f677948: // Auth(enticAMD), Hygo(nGenuine)
		return vendorAMD
	case e.EBX == 0x756e6547: // Genu(ineIntel)
		return vendorIntel
	}
	return ""
}
