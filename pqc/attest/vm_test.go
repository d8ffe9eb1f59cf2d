package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
	"quantavirt/internal/ukifile"
)

var node = Node{"2916e9a1", "rack-7", "0.1"}

func started() Started {
	return Started{At: time.Unix(9e8, 5), Measures: Measures{
		Name: "web", UUID: "1b4e28ba", Machine: "qv-1", CPUs: 2, Memory: 512 << 20, Firmware: "direct",
		Kernel: sumOf([]byte("kernel")), Initrd: sumOf([]byte("initrd")), Cmdline: "console=hvc0 <&>",
		Disks: []Disk{
			{Name: "root", Size: 1 << 20, ReadOnly: true, Content: sumOf([]byte("root"))},
			{Name: "data", Serial: "S1", Size: 1 << 30, Origin: sumOf([]byte("data"))},
		}, Card: "none", Config: sumOf([]byte("config")),
	}}
}

// goodPolicy is all that started says, as a verifier would write it.
func goodPolicy(t testing.TB) Policy {
	t.Helper()
	data, err := json.MarshalIndent(started().Measures, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePolicy(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// vmReport is what a node writes, and what a verifier reads of it; without a TPM if d is nil.
func vmReport(t testing.TB, id *Identity, d *tpm.Device, log []byte) ([]byte, VMReport) {
	t.Helper()
	r, err := NewVM(node, started(), nonce, d, log, id, time.Unix(1e9, 7))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !IsVM(data) {
		t.Error("it is not told from a node's report")
	}
	back, err := ParseVM(data)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("%v: %+v became %+v", err, r, back)
	}
	return data, back
}

func wrongs(checks []Check) string {
	var names []string
	for _, k := range checks {
		if !k.Good {
			names = append(names, k.Name)
		}
	}
	return strings.Join(names, " ")
}

// refusedVM wants a verdict, and the names of what is wrong in it.
func refusedVM(t *testing.T, name string, r VMReport, want ExpectedVM, wrong, text string) {
	t.Helper()
	checks, err := r.Verify(want)
	if !errors.Is(err, qverr.PQCAttestation) || wrongs(checks) != wrong || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: wrong are %q: %v", name, wrongs(checks), err)
		return
	}
	var names []string
	for _, k := range checks {
		if !k.Good {
			names = append(names, k.Name)
		}
	}
	if got := qverr.From(err).Details["measures"]; !reflect.DeepEqual(got, names) {
		t.Errorf("%s: the details name %v", name, got)
	}
}

// Each measure is named when it is another.
func TestVMMeasures(t *testing.T) {
	id := identity(t)
	_, good := vmReport(t, id, nil, nil)
	want := ExpectedVM{Nonce: nonce, Identity: Fingerprint(id.Public()), Policy: goodPolicy(t)}
	checks, err := good.Verify(want)
	if err != nil || wrongs(checks) != "" || len(checks) != 4+len(measureNames()) {
		t.Fatalf("%+v %v", checks, err)
	}
	other := sumOf([]byte("another"))
	change := func(fn func(m *Measures)) Policy {
		m := started().Measures
		fn(&m)
		data, _ := json.Marshal(m)
		p, err := ParsePolicy(data)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tested := map[string]bool{}
	for _, c := range []struct {
		wrong, text string
		fn          func(m *Measures)
	}{
		{"name", "name: is web, not x", func(m *Measures) { m.Name = "x" }},
		{"uuid", "is 1b4e28ba, not x", func(m *Measures) { m.UUID = "x" }},
		{"machine", "is qv-1, not qv-2", func(m *Measures) { m.Machine = "qv-2" }},
		{"cpus", "is 2, not 3", func(m *Measures) { m.CPUs++ }},
		{"memory_bytes", "is 536870912, not 536870911", func(m *Measures) { m.Memory-- }},
		{"firmware", "is direct, not ovmf", func(m *Measures) { m.Firmware = "ovmf" }},
		{"kernel", "not " + other, func(m *Measures) { m.Kernel = other }},
		{"initrd", "not none", func(m *Measures) { m.Initrd = "" }},
		{"cmdline", "is console=hvc0 <&>, not quiet", func(m *Measures) { m.Cmdline = "quiet" }},
		{"disks", "there are 2, not 1", func(m *Measures) { m.Disks = m.Disks[:1] }},
		{"disks", "[0].content is ", func(m *Measures) { m.Disks[0].Content = other }},
		{"disks", "[0].readonly is true, not false", func(m *Measures) { m.Disks[0].ReadOnly = false }},
		{"disks", "[1].origin is ", func(m *Measures) { m.Disks[1].Origin = "" }},
		{"disks", "[1].size_bytes is 1073741824, not 5", func(m *Measures) { m.Disks[1].Size = 5 }},
		{"card", "is none, not passthrough", func(m *Measures) { m.Card = "passthrough" }},
		{"config", "not " + other, func(m *Measures) { m.Config = other }},
	} {
		w := want
		w.Policy = change(c.fn)
		refusedVM(t, c.wrong+" "+c.text, good, w, c.wrong, c.text)
		tested[c.wrong] = true
	}
	if got := slices.Sorted(maps.Keys(tested)); len(got) != len(measureNames()) {
		t.Errorf("tested are only %v of %v", got, measureNames())
	}
	two := want
	two.Policy = change(func(m *Measures) { m.Kernel, m.Cmdline = other, "quiet" })
	refusedVM(t, "two", good, two, "kernel cmdline", "; cmdline: is ")
}

// What the policy does not name is shown and not compared.
func TestVMPartialPolicy(t *testing.T) {
	_, r := vmReport(t, identity(t), nil, nil)
	p, err := ParsePolicy([]byte(`{"disks": [{"name": "root"}, {}], "cpus": 2}`))
	if err != nil {
		t.Fatal(err)
	}
	checks, err := r.Verify(ExpectedVM{Nonce: nonce, Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range checks {
		compared := slices.Contains([]string{"identity", "signature", "nonce", "disks", "cpus"}, k.Name)
		if k.Skipped == compared || !compared && !strings.HasPrefix(k.Detail, "not ") {
			t.Errorf("%+v", k)
		}
	}
	if err := p.Complete(); !errors.Is(err, qverr.Inval) || !strings.Contains(err.Error(), "kernel, initrd, cmdline") {
		t.Errorf("%v", err)
	}
	if err := goodPolicy(t).Complete(); err != nil {
		t.Error(err)
	}
}

func TestVMReportRefusals(t *testing.T) {
	mine, theirs := identity(t), identity(t)
	_, good := vmReport(t, mine, nil, nil)
	want := ExpectedVM{Nonce: nonce, Identity: Fingerprint(mine.Public()), Policy: goodPolicy(t)}
	change := func(fn func(r *VMReport)) VMReport {
		r := good
		r.Statement.Measures.Disks = slices.Clone(good.Statement.Measures.Disks)
		r.Signature = bytes.Clone(good.Signature)
		fn(&r)
		return r
	}
	lie := func(r *VMReport) {
		r.Statement.Measures.Kernel = sumOf([]byte("another"))
		r.Identity = theirs.Public()
		statement, _ := r.Statement.Encode()
		r.Signature, _ = theirs.sign(statement, vmContext)
	}
	for _, c := range []struct {
		name, wrong, text string
		r                 VMReport
	}{
		{"a changed signature", "signature", "did not sign", change(func(r *VMReport) { r.Signature[9] ^= 1 })},
		{"a changed time", "signature", "did not sign", change(func(r *VMReport) { r.Statement.Started = r.Statement.Started.Add(time.Hour) })},
		{"a changed disk", "signature disks", "did not sign", change(func(r *VMReport) { r.Statement.Measures.Disks[1].Serial = "S2" })},
		{"another node's identity", "identity kernel", "it is sha256:", change(lie)},
		{"a signature of a node's report", "signature", "did not sign", change(func(r *VMReport) {
			statement, _ := r.Statement.Encode()
			r.Signature, _ = mine.sign(statement, context)
		})},
		{"no identity", "identity signature", "no ML-DSA-87", change(func(r *VMReport) { r.Identity = nil })},
	} {
		refusedVM(t, c.name, c.r, want, c.wrong, c.text)
	}
	late := want
	late.Nonce = []byte("another nonce of 16 bytes")
	refusedVM(t, "another nonce", good, late, "nonce", "answers another nonce")
	measured := want
	measured.Host = &Expected{}
	refusedVM(t, "no TPM", good, measured, "host", "has no TPM")
}

// One byte that is another makes it no report, or one that is refused.
func TestVMReportFlipped(t *testing.T) {
	id := identity(t)
	data, _ := vmReport(t, id, nil, nil)
	want := ExpectedVM{Nonce: nonce, Identity: Fingerprint(id.Public())}
	step := 1
	for at := 0; at < len(data); at += step {
		if at > 2000 { // the identity and the signature
			step = 23
		}
		for _, bit := range []byte{1, 0x20} {
			flipped := bytes.Clone(data)
			flipped[at] ^= bit
			r, err := ParseVM(flipped)
			if err == nil {
				_, err = r.Verify(want)
			} else if !errors.Is(err, qverr.Inval) {
				t.Errorf("byte %d: %v", at, err)
			}
			if err == nil {
				t.Errorf("byte %d of %d flipped, by %#x, is accepted", at, len(data), bit)
			}
		}
	}
	for n := 0; n < len(data); n += 97 {
		if _, err := ParseVM(data[:n]); !errors.Is(err, qverr.Inval) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func TestParseVMRefusals(t *testing.T) {
	id := identity(t)
	data, _ := vmReport(t, id, nil, nil)
	text := string(data)
	replaced := func(old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in %.600s", old, text)
		}
		return strings.Replace(text, old, with, 1)
	}
	kernel := sumOf([]byte("kernel"))
	for name, bad := range map[string]string{
		"nothing":             "",
		"no object":           "[]",
		"another kind":        replaced(`"kind":"vm"`, `"kind":"pod"`),
		"another format":      replaced(`"format":1`, `"format":2`),
		"unknown member":      replaced(`"format":1`, `"format":1,"trust":true`),
		"unknown measure":     replaced(`"card":"none"`, `"card":"none","luck":7`),
		"member twice":        replaced(`"cpus":2`, `"cpus":9,"cpus":2`),
		"other case":          replaced(`"cpus":2`, `"CPUs":2`),
		"other order":         replaced(`"format":1,"kind":"vm"`, `"kind":"vm","format":1`),
		"other number":        replaced(`"cpus":2`, `"cpus":2e0`),
		"no CPU":              replaced(`"cpus":2`, `"cpus":0`),
		"giant memory":        replaced(`"memory_bytes":536870912`, `"memory_bytes":1152921504606846977`),
		"memory out of range": replaced(`"memory_bytes":536870912`, `"memory_bytes":99999999999999999999`),
		"negative size":       replaced(`"size_bytes":1048576`, `"size_bytes":-1`),
		"capital digest":      replaced(kernel, strings.ToUpper(kernel)),
		"short digest":        replaced(kernel, kernel[2:]),
		"no disks":            replaced(`"disks":[`, `"disks":null,"x":[`),
		"two origins":         replaced(`"origin":""`, `"origin":"`+kernel+`"`),
		"written and hashed":  replaced(`"readonly":true`, `"readonly":false`),
		"not hashed":          replaced(`"readonly":false`, `"readonly":true`),
		"short nonce":         replaced(`"nonce":"`, `"nonce":"00","x":"`),
		"half a second":       replaced(`"time":"2001-09-09T01:46:40Z"`, `"time":"2001-09-09T01:46:40.5Z"`),
		"another zone":        replaced(`"time":"2001-09-09T01:46:40Z"`, `"time":"2001-09-09T02:46:40+01:00"`),
		"a host it has not":   replaced(`"tpm":false`, `"tpm":true`),
		"short identity":      replaced(`"identity":"`, `"identity":"AAAA","x":"`),
		"long command line":   replaced(`console=hvc0`, strings.Repeat("x", maxLine)),
		"something behind":    text + "{}",
		"giant":               text + strings.Repeat(" ", maxReport),
		"deep":                strings.Repeat("[", 1<<16),
	} {
		if _, err := ParseVM([]byte(bad)); !errors.Is(err, qverr.Inval) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(strings.NewReader(strings.Repeat(" ", maxReport+1))); !errors.Is(err, qverr.Inval) {
		t.Errorf("a giant file: %v", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(pretty.String())
	if plain == pretty.String() {
		t.Error("nothing was escaped")
	}
	r, err := ParseVM([]byte(plain))
	if err != nil {
		t.Fatalf("pretty: %v", err)
	}
	if _, err := r.Verify(ExpectedVM{Nonce: nonce, Policy: goodPolicy(t)}); err != nil {
		t.Errorf("pretty: %v", err)
	}
}

func TestParsePolicyRefusals(t *testing.T) {
	for name, bad := range map[string]string{
		"nothing": "", "no object": "[]", "null": "null", "unknown": `{"luck":7}`, "unknown of a disk": `{"disks":[{"luck":7}]}`,
		"other case": `{"KERNEL":"x"}`, "number": `{"kernel":7}`, "behind": `{}{}`, "giant": strings.Repeat(" ", maxPolicy+1),
	} {
		if _, err := ParsePolicy([]byte(bad)); !errors.Is(err, qverr.Config) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ConfigDigest([]byte("7")); !errors.Is(err, qverr.Config) {
		t.Errorf("%v", err)
	}
	a, _ := ConfigDigest([]byte(`{"b": 1.50, "a": {"d":2,"c":"<"}}`))
	b, _ := ConfigDigest([]byte("{\n\"a\":{\"c\":\"<\",\"d\":2},\"b\":1.50}\n"))
	c, _ := ConfigDigest([]byte(`{"b": 1.5, "a": {"d":2,"c":"<"}}`))
	if a != b || a == c || !isDigest(a) {
		t.Errorf("%s %s %s", a, b, c)
	}
}

// The node that measured proves what it booted, and is tied to the measures.
func TestVMHost(t *testing.T) {
	id := identity(t)
	d := tpmtest.New(t)
	m := measured(t, d, "quiet")
	log := tpmtest.Log(append(section(".linux", "a kernel"), section(".cmdline", "quiet")...)...)
	_, good := vmReport(t, id, d, log)
	want := ExpectedVM{Nonce: nonce, Identity: Fingerprint(id.Public()), Host: &Expected{System: m}, Policy: goodPolicy(t)}
	checks, err := good.Verify(want)
	if err != nil || len(checks) != 3+1+7+len(measureNames()) {
		t.Fatalf("%+v %v", checks, err)
	}
	other := want
	other.Host = &Expected{System: otherSystem(t)}
	refusedVM(t, "another system", good, other, "host system", ".cmdline is ")
	moved := good
	moved.Statement.Measures.Cmdline = "quiet"
	statement, _ := moved.Statement.Encode()
	moved.Signature, _ = id.sign(statement, vmContext)
	refusedVM(t, "the quote of another VM", moved, want, "host nonce host quote cmdline", "another nonce")
	renamed := good
	renamed.Statement.NodeID = "x"
	statement, _ = renamed.Statement.Encode()
	renamed.Signature, _ = id.sign(statement, vmContext)
	refusedVM(t, "another node", renamed, want, "host host nonce host quote", "about another node")
	stripped := good
	stripped.Host = nil
	refusedVM(t, "no host", stripped, want, "host", "has no TPM")
	data, _ := json.Marshal(stripped)
	if _, err := ParseVM(data); !errors.Is(err, qverr.Inval) {
		t.Errorf("no host, though it says so: %v", err)
	}
	any := want
	any.Host = nil
	if _, err := good.Verify(any); err != nil {
		t.Errorf("any host: %v", err)
	}
}

func otherSystem(t *testing.T) ukifile.Measurement { return measured(t, nil, "loud") }

func FuzzParseVM(f *testing.F) {
	id := identity(f)
	data, r := vmReport(f, id, nil, nil)
	f.Add(data)
	r.Statement.TPM, r.Host = true, &Report{Format: format}
	if data, err := json.Marshal(r); err == nil {
		f.Add(data)
	}
	f.Add([]byte(`{"format":1,"kind":"vm","statement":{"measures":{"disks":[{}]}},"host":{"pcrs":{"11":""},"quote":{}}}`))
	policy, fingerprint := goodPolicy(f), Fingerprint(id.Public())
	f.Fuzz(func(t *testing.T, data []byte) {
		IsVM(data)
		r, err := ParseVM(data)
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Error(err)
			}
			return
		}
		again, err := json.Marshal(r)
		if err != nil || !bytes.Equal(again, normal(data)) {
			t.Errorf("it has two forms: %v", err)
		}
		// Nobody guesses a quote.
		_, err = r.Verify(ExpectedVM{Nonce: nonce, Identity: fingerprint, Host: &Expected{}, Policy: policy})
		if !errors.Is(err, qverr.PQCAttestation) {
			t.Errorf("%v", err)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	data, _ := json.Marshal(started().Measures)
	f.Add(data)
	f.Add([]byte(`{"disks":[{"content":null}],"cpus":1e9}`))
	_, r := vmReport(f, identity(f), nil, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			if !errors.Is(err, qverr.Config) {
				t.Error(err)
			}
			return
		}
		if _, err := r.Verify(ExpectedVM{Nonce: nonce, Policy: p}); err != nil && !errors.Is(err, qverr.PQCAttestation) {
			t.Error(err)
		}
	})
}
