package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/pqc/attest"
)

const vmNonce = "00112233445566778899aabbccddeeff"

// attested is a node without TPM whose VM web runs what is in the files of dir.
type attested struct {
	t        *testing.T
	dir      string
	identity *attest.Identity
	env      map[string]string
}

func newAttested(t *testing.T) *attested {
	t.Helper()
	a := &attested{t: t, dir: t.TempDir()}
	a.write("identity.key", strings.Repeat("i", 32))
	a.write("kernel", "a kernel")
	a.write("initrd", "an initrd")
	a.write("config", `{"name": "web", "cpu": {"count": 1}}`)
	var err error
	if a.identity, err = attest.OpenIdentity(a.dir); err != nil {
		t.Fatal(err)
	}
	a.env = node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Nonce string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method+" "+r.URL.Path != "POST /api/v1/vms/web/attest" {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		answerJSON(w, http.StatusOK, a.report(in.Nonce))
	}))
	return a
}

func (a *attested) write(name, text string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *attested) path(name string) string { return filepath.Join(a.dir, name) }

// report is what the node answers.
func (a *attested) report(digits string) string {
	nonce, err := hex.DecodeString(digits)
	if err != nil {
		a.t.Error(err)
	}
	digest := func(name string) string {
		d, err := fileDigest(a.path(name))
		if err != nil {
			a.t.Error(err)
		}
		return d
	}
	config, err := configDigest(a.path("config"))
	if err != nil {
		a.t.Error(err)
	}
	r, err := attest.NewVM(attest.Node{ID: "id", Hostname: "rack-7", Version: "0.1"}, attest.Started{At: time.Unix(1e9, 0), Measures: attest.Measures{
		Name: "web", UUID: "1b4e28ba-2fa1-41d2-883f-0016d3cca427", Machine: "qv-1", CPUs: 1, Memory: 1 << 29, Firmware: "direct",
		Kernel: digest("kernel"), Initrd: digest("initrd"), Cmdline: "console=hvc0 <x>", Card: "none", Config: config,
		Disks: []attest.Disk{
			{Name: "root", Size: 9, ReadOnly: true, Content: digest("kernel")}, {Name: "data", Size: 1 << 20, Origin: digest("initrd")}, {Name: "scratch", Size: 512},
		},
	}}, nonce, nil, nil, a.identity, time.Unix(1e9+1, 0))
	if err != nil {
		a.t.Error(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		a.t.Error(err)
	}
	return string(data)
}

func (a *attested) verify(report string, args ...string) result {
	a.t.Helper()
	return runIn(a.t, nil, nil, append([]string{"attest", "verify", "--nonce", vmNonce, "--identity", attest.Fingerprint(a.identity.Public()), report}, args...)...)
}

// A report goes from the node to who checks it, without the node.
func TestVMAttest(t *testing.T) {
	a := newAttested(t)
	got := runIn(t, a.env, nil, "vm", "attest", "web", "--nonce", vmNonce)
	if got.exit != 0 {
		t.Fatal(got.err)
	}
	report := a.write("report.json", got.out)
	said := []string{"--any-host", "--kernel", a.path("kernel"), "--initrd", a.path("initrd"), "--cmdline", "console=hvc0 <x>", "--config", a.path("config")}
	good := a.verify(report, said...)
	if good.exit != 0 {
		t.Fatalf("exit %d: %s%s", good.exit, good.out, good.err)
	}
	golden(t, "attest-verify-vm", good.out)

	var parts struct {
		Statement struct {
			Measures json.RawMessage `json:"measures"`
		} `json:"statement"`
	}
	if err := json.Unmarshal([]byte(got.out), &parts); err != nil {
		t.Fatal(err)
	}
	policy := a.write("policy.json", string(parts.Statement.Measures))
	if got := a.verify(report, "--any-host", "--policy", policy); got.exit != 0 || strings.Contains(got.out, "not compared") {
		t.Errorf("its own measures as a policy: exit %d: %s%s", got.exit, got.out, got.err)
	}

	other := strings.Replace(string(parts.Statement.Measures), `"console=hvc0 \u003cx\u003e"`, `"quiet"`, 1)
	other = strings.Replace(other, `"size_bytes": 9`, `"size_bytes": 10`, 1)
	wrong := a.verify(report, "--any-host", "--policy", a.write("other.json", other))
	if wrong.exit != 10 || !strings.HasPrefix(wrong.err, "Error: PQC_ERR_ATTESTATION (-115): ") || !strings.Contains(wrong.err, "cmdline: ") {
		t.Errorf("exit %d: %s", wrong.exit, wrong.err)
	}
	golden(t, "attest-verify-vm-wrong", wrong.out+wrong.err)

	flipped := a.write("flipped.json", strings.Replace(got.out, `"cpus": 1`, `"cpus": 2`, 1))
	if got := a.verify(flipped, said...); got.exit != 10 || !strings.Contains(got.err, "signature: ") {
		t.Errorf("a changed report: exit %d: %s", got.exit, got.err)
	}
	cut := a.write("cut.json", got.out[:len(got.out)/2])
	if got := a.verify(cut, said...); got.exit != 2 || !strings.HasPrefix(got.err, "Error: QV_ERR_INVAL (-5): ") {
		t.Errorf("half a report: exit %d: %s", got.exit, got.err)
	}
	a.write("kernel", "another kernel")
	if got := a.verify(report, said...); got.exit != 10 || !strings.Contains(got.err, "kernel: ") || strings.Contains(got.err, "initrd") {
		t.Errorf("another kernel: exit %d: %s", got.exit, got.err)
	}
}

func TestVMAttestUsage(t *testing.T) {
	a := newAttested(t)
	vm := a.write("vm.json", a.report(vmNonce))
	of := a.write("node.json", `{"format":1}`)
	all := []string{"--any-host", "--kernel", a.path("kernel"), "--initrd", "", "--cmdline", ""}
	uki := []string{"--uki", a.path("kernel")}
	for name, c := range map[string]struct {
		args []string
		text string
	}{
		"nothing of the host":      {[]string{vm}, "one of --uki and --bundle"},
		"two hosts":                {append([]string{vm, "--any-host"}, uki...), "one of --uki and --bundle"},
		"no kernel":                {[]string{vm, "--any-host"}, "what kernel, initrd, cmdline of the VM should be"},
		"no initrd":                {[]string{vm, "--any-host", "--kernel", a.path("kernel"), "--cmdline", ""}, "what initrd of"},
		"a node's report":          {append([]string{of}, all...), "--kernel is for the report about a VM"},
		"any host of a node":       {[]string{of, "--any-host"}, "--any-host is for the report about a VM"},
		"not what the policy says": {append([]string{vm, "--policy", a.write("p", `{"cmdline":"x"}`)}, all...), "--cmdline is not what the policy says"},
	} {
		got := runIn(t, nil, nil, append([]string{"attest", "verify", "--nonce", vmNonce}, c.args...)...)
		if got.exit != 2 || got.out != "" || !strings.Contains(got.err, c.text) {
			t.Errorf("%s: exit %d: %s%s", name, got.exit, got.out, got.err)
		}
	}
	for name, args := range map[string][]string{"no nonce": {"web"}, "short nonce": {"web", "--nonce", "00"}, "no VM": {"--nonce", vmNonce}} {
		if got := runIn(t, a.env, nil, append([]string{"vm", "attest"}, args...)...); got.exit != 2 || !strings.HasPrefix(got.err, "Error: QV_ERR_INVAL") {
			t.Errorf("%s: exit %d: %s", name, got.exit, got.err)
		}
	}
	big := a.write("big", string(bytes.Repeat([]byte(" "), 8<<20)))
	if got := a.verify(big, all...); got.exit != 2 || !strings.Contains(got.err, "a report of more than") {
		t.Errorf("a giant report: exit %d: %s", got.exit, got.err)
	}
	for _, line := range []string{"vm attest --help", "attest verify --help"} {
		got := runIn(t, nil, nil, strings.Fields(line)...)
		golden(t, strings.NewReplacer(" --", "-", " ", "-").Replace(line), got.out)
	}
}
