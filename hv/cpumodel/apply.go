package cpumodel

import (
	"slices"
	"strings"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// Check tells whether a model and flags (+name or -name) exist at all, on whatever
// host. Its errors carry QV_ERR_CONFIG and the path of the bad field.
func Check(model string, features []string) error {
	if model != "" && model != Host && findModel(model) == nil {
		return qverr.New(qverr.Config, "cpu.model: %.64q is unknown; known are %s", model, strings.Join(Names(), ", ")).With("path", "cpu.model")
	}
	_, err := parse(features)
	return err
}

// changes are the flags to switch on and off.
type changes struct{ on, off set }

func parse(features []string) (changes, error) {
	c := changes{set{}, set{}}
	bad := func(format string, args ...any) (changes, error) {
		return c, qverr.New(qverr.Config, "cpu.features: "+format, args...).With("path", "cpu.features")
	}
	for _, f := range features {
		if len(f) < 2 || f[0] != '+' && f[0] != '-' {
			return bad("%.40q is neither +flag nor -flag", f)
		}
		name := strings.NewReplacer("-", "_", ".", "_").Replace(f[1:])
		if a, ok := aliases[name]; ok {
			name = a
		}
		if _, ok := bits[name]; !ok {
			return bad("there is no CPU flag %.40q", f[1:])
		}
		if f[0] == '+' {
			c.on[name] = true
		} else {
			c.off[name] = true
		}
	}
	for name := range c.on {
		if c.off[name] {
			return bad("%s is switched on and off", name)
		}
		for off := range c.off {
			if dependsOn(name, off) {
				return bad("%s needs %s, which is switched off", name, off)
			}
		}
	}
	return c, nil
}

// Available tells whether a host with these leaves can be the model. Its errors
// carry QV_ERR_CPUID.
func Available(host []kvm.CPUIDEntry, name string) error {
	m := findModel(name)
	if m == nil {
		return nil
	}
	if m.vendor != "" && m.vendor != vendor(host) {
		return qverr.New(qverr.CPUID, "CPU model %s is of %s, and the host's CPU is not", name, m.vendor).With("model", name)
	}
	have := offered(host)
	var missing []string
	for _, flag := range m.flags().sorted() {
		if !have[flag] {
			missing = append(missing, flag)
		}
	}
	if len(missing) > 0 {
		return qverr.New(qverr.CPUID, "CPU model %s: the host has not %s", name, strings.Join(missing, ", ")).
			With("model", name).With("missing", missing)
	}
	return nil
}

// Apply returns the leaves of a guest that is to see the model ("" means host) with
// the changes of features, on a host that offers host. Virtualization is hidden
// unless it is switched on by name. What the host lacks is QV_ERR_CPUID.
func Apply(host []kvm.CPUIDEntry, name string, features []string) ([]kvm.CPUIDEntry, error) {
	c, err := parse(features)
	if err != nil {
		return nil, err
	}
	if err := Available(host, name); err != nil {
		return nil, err
	}
	have := offered(host)
	for _, flag := range c.on.sorted() {
		for f := flag; f != ""; f = parent(f) {
			if !have[f] {
				return nil, qverr.New(qverr.CPUID, "cpu.features: the host has not %s", f).With("flag", f)
			}
		}
	}
	m := findModel(name)
	want := wanted(m, have, c)
	list := slices.Clone(host)
	for i := range words {
		setWord(list, i, want, m == nil)
	}
	if m != nil {
		list = m.identify(list)
	}
	if AMD(list) {
		copyToAMD(list)
	}
	return dropLeaves(list, want, m != nil), nil
}

// wanted are the flags that the guest sees.
func wanted(m *model, have set, c changes) set {
	want := set{}
	keep := set{}.add(kept)
	var asked set
	if m != nil {
		asked = m.flags()
	}
	for flag := range have {
		want[flag] = m == nil || asked[flag] || keep[flag]
	}
	want["vmx"], want["svm"] = false, false
	for flag := range c.on {
		for ; flag != ""; flag = parent(flag) {
			want[flag] = true
		}
	}
	for flag := range want {
		for off := range c.off {
			if flag == off || dependsOn(flag, off) {
				want[flag] = false
			}
		}
	}
	return want
}

// setWord puts the flags of one word into list. Bits without a name stay as they are
// on the host when unnamed is true, else they are hidden.
func setWord(list []kvm.CPUIDEntry, i int, want set, unnamed bool) {
	w := words[i]
	e := find(list, w.function, w.index)
	if e == nil {
		return
	}
	known, on := uint32(0), uint32(0)
	for name, b := range bits {
		if b.word != i {
			continue
		}
		known |= b.mask
		if want[name] {
			on |= b.mask
		}
	}
	v := value(e, w.reg)
	if unnamed {
		on |= *v &^ known
	}
	*v = on
}

// copyToAMD repeats bits of leaf 1 EDX in leaf 0x80000001 EDX.
func copyToAMD(list []kvm.CPUIDEntry) {
	from, to := find(list, 1, 0), find(list, 0x8000_0001, 0)
	if from != nil && to != nil {
		to.EDX = to.EDX&^amdCopies | from.EDX&amdCopies
	}
}

// identify puts the model's name and numbers in.
func (m *model) identify(list []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	version := m.stepping&0xf | m.number&0xf<<4 | m.number>>4<<16
	if m.family > 15 {
		version |= 15<<8 | (m.family-15)<<20
	} else {
		version |= m.family << 8
	}
	var brand [48]byte
	copy(brand[:], "QuantaVirt "+m.name)
	for i := range list {
		switch e := &list[i]; e.Function {
		case 1:
			e.EAX = version
		case 0x8000_0001:
			if e.EAX != 0 { // AMD repeats it
				e.EAX = version
			}
		case 0x8000_0002, 0x8000_0003, 0x8000_0004:
			part := brand[16*(e.Function-0x8000_0002):]
			for r := eax; r <= edx; r++ {
				*value(e, r) = uint32(part[4*r]) | uint32(part[4*r+1])<<8 | uint32(part[4*r+2])<<16 | uint32(part[4*r+3])<<24
			}
		}
	}
	return list
}
