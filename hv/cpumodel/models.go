package cpumodel

import "slices"

const (
	vendorAMD   = "AMD"
	vendorIntel = "Intel"
)

// model is a named baseline: the flags of another one and some more.
type model struct {
	name, base, vendor string // vendor "": any
	// family, model and stepping are what leaf 1 says.
	family, number, stepping uint32
	more                     string
}

// Host is the model that shows all that the host has.
const Host = "host"

const (
	pentium = `fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm`
	level2  = ` pni cx16 lahf_lm popcnt ssse3 sse4_1 sse4_2`
	level3  = ` avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`
	level4  = ` avx512f avx512bw avx512cd avx512dq avx512vl`
)

// models are the levels of the x86-64 psABI and generations of servers, with the
// names and flags that QEMU and libvirt have for them, without TSX. Flags that KVM
// may lack on a host of the very generation are left out.
var models = []model{
	{name: "x86-64-v1", family: 15, number: 107, stepping: 1, more: pentium},
	{name: "x86-64-v2", base: "x86-64-v1", family: 15, number: 107, stepping: 1, more: level2},
	{name: "x86-64-v2-AES", base: "x86-64-v2", family: 15, number: 107, stepping: 1, more: `aes`},
	{name: "x86-64-v3", base: "x86-64-v2", family: 15, number: 107, stepping: 1, more: level3},
	{name: "x86-64-v4", base: "x86-64-v3", family: 15, number: 107, stepping: 1, more: level4},

	{name: "Nehalem", base: "x86-64-v2", vendor: vendorIntel, family: 6, number: 26, stepping: 3},
	{name: "Westmere", base: "Nehalem", vendor: vendorIntel, family: 6, number: 44, stepping: 1, more: `aes pclmulqdq`},
	{name: "SandyBridge", base: "Westmere", vendor: vendorIntel, family: 6, number: 42, stepping: 1, more: `avx xsave xsaveopt rdtscp`},
	{name: "IvyBridge", base: "SandyBridge", vendor: vendorIntel, family: 6, number: 58, stepping: 9, more: `f16c rdrand fsgsbase smep erms`},
	{name: "Haswell", base: "IvyBridge", vendor: vendorIntel, family: 6, number: 60, stepping: 1, more: `avx2 bmi1 bmi2 fma abm movbe pcid invpcid`},
	{name: "Broadwell", base: "Haswell", vendor: vendorIntel, family: 6, number: 61, stepping: 2, more: `3dnowprefetch rdseed adx smap`},
	{name: "Skylake-Server", base: "Broadwell", vendor: vendorIntel, family: 6, number: 85, stepping: 4,
		more: `clflushopt clwb pdpe1gb xsavec xgetbv1` + level4},
	{name: "Cascadelake-Server", base: "Skylake-Server", vendor: vendorIntel, family: 6, number: 85, stepping: 6, more: `avx512_vnni`},
	{name: "Icelake-Server", base: "Cascadelake-Server", vendor: vendorIntel, family: 6, number: 134,
		more: `avx512vbmi avx512ifma avx512_vbmi2 avx512_bitalg avx512_vpopcntdq gfni vaes vpclmulqdq umip rdpid sha_ni`},
	{name: "SapphireRapids", base: "Icelake-Server", vendor: vendorIntel, family: 6, number: 143, stepping: 4,
		more: `avx_vnni avx512_bf16 avx512_fp16 fsrm serialize wbnoinvd`},

	{name: "EPYC", base: "x86-64-v3", vendor: vendorAMD, family: 23, number: 1, stepping: 2,
		more: `aes pclmulqdq rdrand rdtscp fsgsbase smep smap rdseed adx clflushopt sha_ni xsaveopt xsavec xgetbv1
			cr8_legacy sse4a misalignsse 3dnowprefetch osvw mmxext fxsr_opt pdpe1gb`},
	{name: "EPYC-Rome", base: "EPYC", vendor: vendorAMD, family: 23, number: 49, more: `umip clwb rdpid wbnoinvd clzero`},
	{name: "EPYC-Milan", base: "EPYC-Rome", vendor: vendorAMD, family: 25, number: 1, stepping: 1, more: `pcid invpcid erms fsrm vaes vpclmulqdq`},
	{name: "EPYC-Genoa", base: "EPYC-Milan", vendor: vendorAMD, family: 25, number: 17,
		more: `avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg avx512_vnni avx512_vpopcntdq avx512_bf16 gfni` + level4},
}

// kept are flags that a baseline shows where the host has them: guests want to know
// that and how they are protected from flaws of this very CPU, and KVM's timers and
// interrupt controllers are the same everywhere.
const kept = `vme ss ht cmp_legacy topoext arat tsc_adjust x2apic tsc_deadline_timer hypervisor osxsave ospke
	md_clear spec_ctrl stibp ssbd arch_capabilities flush_l1d srbds_ctrl intel_psfd ipred_ctrl rrsba_ctrl bhi_ctrl mcdt_no
	amd_ibpb amd_ibrs amd_stibp amd_stibp_always_on amd_ssbd virt_ssbd amd_ssb_no amd_psfd btc_no
	lfence_rdtsc null_sel_clr_base autoibrs sbpb ibpb_brtype srso_no`

// Names lists the models, "host" first.
func Names() []string {
	names := []string{Host}
	for _, m := range models {
		names = append(names, m.name)
	}
	return names
}

func findModel(name string) *model {
	i := slices.IndexFunc(models, func(m model) bool { return m.name == name })
	if i < 0 {
		return nil
	}
	return &models[i]
}

// flags are all that the model asks for.
func (m *model) flags() set {
	s := set{}
	if m.base != "" {
		s = findModel(m.base).flags()
	}
	return s.add(m.more)
}
