package cpumodel

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// hostWith is a host that offers flags.
func hostWith(vendorEBX uint32, flags ...string) []kvm.CPUIDEntry {
	list := []kvm.CPUIDEntry{{Function: 0, EAX: 0x1f, EBX: vendorEBX}}
	for _, w := range words {
		if find(list, w.function, w.index) == nil {
			list = append(list, kvm.CPUIDEntry{Function: w.function, Index: w.index})
		}
	}
	list = append(list, kvm.CPUIDEntry{Function: 0xd, Index: 0, EAX: 0x2e7, ECX: 2696},
		kvm.CPUIDEntry{Function: 0xd, Index: 2, EAX: 256, EBX: 576},
		kvm.CPUIDEntry{Function: 0xd, Index: 5, EAX: 64, EBX: 1088},
		kvm.CPUIDEntry{Function: 0xd, Index: 9, EAX: 8, EBX: 2688},
		kvm.CPUIDEntry{Function: 0x8000_000a, EAX: 1}, kvm.CPUIDEntry{Function: 0xa, EAX: 5},
		kvm.CPUIDEntry{Function: 0x8000_0002}, kvm.CPUIDEntry{Function: 0x8000_0003}, kvm.CPUIDEntry{Function: 0x8000_0004})
	for _, name := range flags {
		b, ok := bits[name]
		if !ok {
			panic(name)
		}
		w := words[b.word]
		*value(find(list, w.function, w.index), w.reg) |= b.mask
	}
	return list
}

const (
	amd   = 0x68747541
	intel = 0x756e6547
)

func all() []string {
	var names []string
	for name := range bits {
		names = append(names, name)
	}
	return names
}

// Every name in the tables means a bit, and no model asks for a flag without those
// that it needs.
func TestTables(t *testing.T) {
	for i, w := range words {
		if n := len(strings.Fields(w.names)); n > 32 {
			t.Errorf("word %d has %d bits", i, n)
		}
	}
	count := 0
	for _, w := range words {
		for name := range strings.FieldsSeq(w.names) {
			if name != "-" {
				count++
			}
		}
	}
	if count != len(bits) {
		t.Errorf("%d names, %d flags: one stands twice", count, len(bits))
	}
	known := func(where, name string) {
		if _, ok := bits[name]; !ok {
			t.Errorf("%s: %s is no flag", where, name)
		}
	}
	for name, need := range needs {
		known("needs", name)
		known("needs", need)
	}
	for name, flag := range aliases {
		known("alias "+name, flag)
	}
	for name := range strings.FieldsSeq(kept) {
		known("kept", name)
	}
	for i, m := range models {
		if m.base != "" && !slices.ContainsFunc(models[:i], func(b model) bool { return b.name == m.base }) {
			t.Errorf("%s: its base %s does not stand before it", m.name, m.base)
		}
		flags := m.flags()
		for flag := range flags {
			known(m.name, flag)
			if p := parent(flag); p != "" && !flags[p] {
				t.Errorf("%s has %s and not %s", m.name, flag, p)
			}
		}
	}
}

// The bits of a few flags, from the manuals: the table counts right.
func TestBits(t *testing.T) {
	for name, want := range map[string]struct {
		function, index uint32
		reg             register
		bit             int
	}{
		"vmx": {1, 0, ecx, 5}, "avx": {1, 0, ecx, 28}, "hypervisor": {1, 0, ecx, 31}, "x2apic": {1, 0, ecx, 21}, "pcid": {1, 0, ecx, 17},
		"sse2": {1, 0, edx, 26}, "ht": {1, 0, edx, 28}, "avx2": {7, 0, ebx, 5}, "avx512f": {7, 0, ebx, 16}, "sha_ni": {7, 0, ebx, 29}, "smap": {7, 0, ebx, 20},
		"avx512vl": {7, 0, ebx, 31}, "pku": {7, 0, ecx, 3}, "vaes": {7, 0, ecx, 9}, "la57": {7, 0, ecx, 16}, "rdpid": {7, 0, ecx, 22}, "sgx_lc": {7, 0, ecx, 30},
		"fsrm": {7, 0, edx, 4}, "md_clear": {7, 0, edx, 10}, "serialize": {7, 0, edx, 14}, "amx_tile": {7, 0, edx, 24}, "ssbd": {7, 0, edx, 31},
		"avx_vnni": {7, 1, eax, 4}, "lam": {7, 1, eax, 26}, "avx_vnni_int8": {7, 1, edx, 4}, "prefetchiti": {7, 1, edx, 14},
		"svm": {0x80000001, 0, ecx, 2}, "topoext": {0x80000001, 0, ecx, 22}, "mwaitx": {0x80000001, 0, ecx, 29}, "abm": {0x80000001, 0, ecx, 5},
		"syscall": {0x80000001, 0, edx, 11}, "nx": {0x80000001, 0, edx, 20}, "pdpe1gb": {0x80000001, 0, edx, 26}, "lm": {0x80000001, 0, edx, 29},
		"constant_tsc": {0x80000007, 0, edx, 8}, "amd_ibpb": {0x80000008, 0, ebx, 12}, "amd_ssbd": {0x80000008, 0, ebx, 24},
		"btc_no": {0x80000008, 0, ebx, 29}, "autoibrs": {0x80000021, 0, eax, 8}, "srso_no": {0x80000021, 0, eax, 29},
	} {
		b := bits[name]
		if w := words[b.word]; w.function != want.function || w.index != want.index || w.reg != want.reg || b.mask != 1<<want.bit {
			t.Errorf("%s: leaf %#x.%d, register %d, mask %#x", name, w.function, w.index, w.reg, b.mask)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		model    string
		features []string
		path     string // "" for good
	}{
		{"", nil, ""}, {"host", nil, ""}, {"x86-64-v2-AES", []string{"+sse4.1", "-spec-ctrl", "+lzcnt"}, ""},
		{"x86-64-v9", nil, "cpu.model"},
		{"", []string{"+warp"}, "cpu.features"}, {"", []string{"avx"}, "cpu.features"}, {"", []string{"+"}, "cpu.features"},
		{"", []string{"+avx", "-avx"}, "cpu.features"}, {"", []string{"+avx512vl", "-avx"}, "cpu.features"},
	} {
		err := Check(c.model, c.features)
		if c.path == "" && err != nil || c.path != "" && (!errors.Is(err, qverr.Config) || qverr.From(err).Details["path"] != c.path) {
			t.Errorf("%s %v: %v", c.model, c.features, err)
		}
	}
}

func TestApply(t *testing.T) {
	whole := hostWith(intel, all()...)
	level2 := findModel("x86-64-v2").flags().sorted()
	for _, c := range []struct {
		name     string
		host     []kvm.CPUIDEntry
		model    string
		features []string
		has, not string
		code     qverr.Code // 0: none
	}{
		{name: "host", host: whole, has: "avx512f ssbd x2apic hypervisor", not: "vmx svm"},
		{name: "host with virtualization", host: whole, features: []string{"+vmx"}, has: "vmx", not: "svm"},
		{name: "emulated timers", host: hostWith(amd, level2...), has: "x2apic tsc_deadline_timer hypervisor sse4_2"},
		{name: "timer off", host: whole, features: []string{"-tsc-deadline"}, not: "tsc_deadline_timer"},
		{name: "baseline", host: whole, model: "x86-64-v2", has: "sse4_2 cx16 ssbd topoext", not: "avx aes xsave rdrand la57 amx_tile constant_tsc"},
		{name: "baseline and more", host: whole, model: "x86-64-v2-AES", features: []string{"+avx2"}, has: "aes avx avx2 xsave", not: "fma"},
		{name: "what depends goes too", host: whole, features: []string{"-avx"}, has: "xsave aes", not: "avx avx2 fma avx512vl vaes avx512_fp16"},
		{name: "without xsave", host: whole, features: []string{"-xsave"}, not: "xsave avx pku amx_int8 xsaves"},
		{name: "by Intel", host: whole, model: "Icelake-Server", has: "avx512_vnni gfni", not: "amx_tile sse4a hle rtm"},
		{name: "of the other vendor", host: whole, model: "EPYC", code: qverr.CPUID},
		{name: "by AMD", host: hostWith(amd, all()...), model: "EPYC-Genoa", has: "sse4a avx512f topoext"},
		{name: "a host too old", host: hostWith(amd, level2...), model: "x86-64-v3", code: qverr.CPUID},
		{name: "a flag too many", host: hostWith(amd, level2...), features: []string{"+avx"}, code: qverr.CPUID},
		{name: "unknown flag", host: whole, features: []string{"+warp"}, code: qverr.Config},
	} {
		list, err := Apply(c.host, c.model, c.features)
		if c.code != 0 {
			if !errors.Is(err, c.code) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		have := flagsOf(list)
		for flag := range strings.FieldsSeq(c.has) {
			if !have[flag] {
				t.Errorf("%s: %s is hidden", c.name, flag)
			}
		}
		for flag := range strings.FieldsSeq(c.not) {
			if have[flag] {
				t.Errorf("%s: %s shows", c.name, flag)
			}
		}
	}
}

func TestMissingIsNamed(t *testing.T) {
	err := Available(hostWith(amd, findModel("x86-64-v2").flags().sorted()...), "x86-64-v3")
	if err == nil || !strings.Contains(err.Error(), "the host has not abm, avx, avx2, bmi1, bmi2, f16c, fma, movbe, xsave") {
		t.Error(err)
	}
}

func TestExtendedState(t *testing.T) {
	list, err := Apply(hostWith(intel, all()...), "host", []string{"-avx512f", "-xsaves"})
	if err != nil {
		t.Fatal(err)
	}
	main := find(list, 0xd, 0)
	if main.EAX != 0x207 || main.ECX != 2696 {
		t.Errorf("%+v", main)
	}
	if find(list, 0xd, 5) != nil || find(list, 0xd, 2) == nil {
		t.Error("components")
	}
	list, err = Apply(hostWith(intel, all()...), "x86-64-v3", nil)
	if err != nil {
		t.Fatal(err)
	}
	if main = find(list, 0xd, 0); main.EAX != 7 || main.ECX != 832 {
		t.Errorf("%+v", main)
	}
	if list, _ = Apply(hostWith(intel, all()...), "x86-64-v2", nil); find(list, 0xd, 0) != nil || find(list, 0x8000_000a, 0) != nil || find(list, 0xa, 0) != nil {
		t.Error("a hidden feature has its leaf")
	}
}

func TestIdentity(t *testing.T) {
	list, err := Apply(hostWith(amd, all()...), "EPYC-Milan", nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := find(list, 1, 0); e.EAX != 0x00a00f11 {
		t.Errorf("signature %#x", e.EAX)
	}
	if e := find(list, 0x8000_0002, 0); e.EAX != 'Q'|'u'<<8|'a'<<16|'n'<<24 {
		t.Errorf("brand %#x", e.EAX)
	}
	if one, ext := find(list, 1, 0), find(list, 0x8000_0001, 0); one.EDX&amdCopies != ext.EDX&amdCopies {
		t.Errorf("copies %#x, %#x", one.EDX, ext.EDX)
	}
}
