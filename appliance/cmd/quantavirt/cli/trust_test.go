package cli

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
)

// tlsNode serves as a node does on the network, with an authority of its own.
func tlsNode(t *testing.T, policy spec.TLSInfoPolicy, change func(*tls.Config)) (host, pin, pem string) {
	t.Helper()
	dir := t.TempDir()
	ca, err := auth.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca.SetNames(nil, []netip.Addr{netip.MustParseAddr("10.9.8.7")})
	config := ca.TLSConfig(policy)
	if change != nil {
		change(config)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answerJSON(w, 200, `{"items":[],"curve":"`+r.TLS.CurveID.String()+`"}`)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "https://" + l.Addr().String(), ca.Fingerprint(), filepath.Join(dir, "ca.pem")
}

func TestTrust(t *testing.T) {
	host, pin, pem := tlsNode(t, spec.TLSInfoPolicyPQOnly, nil)
	_, otherPin, otherPEM := tlsNode(t, spec.TLSInfoPolicyPQOnly, nil)
	digits := strings.TrimPrefix(pin, "sha256:")
	var colons []string
	for i := 0; i < len(digits); i += 2 {
		colons = append(colons, digits[i:i+2])
	}
	for name, ca := range map[string]string{
		"pin": pin, "digits": digits, "capitals and colons": "SHA256:" + strings.ToUpper(strings.Join(colons, ":")), "file": pem,
	} {
		if r := runIn(t, nil, nil, "--host", host, "--ca-pin", ca, "vm", "list", "-o", "json"); r.exit != 0 || !strings.Contains(r.out, "X25519MLKEM768") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := runIn(t, map[string]string{"QUANTAVIRT_HOST": host, "QUANTAVIRT_CA": pin}, nil, "vm", "list"); r.exit != 0 {
		t.Errorf("environment: %+v", r)
	}
	// Unknown: refused, with what is needed to accept it.
	r := runIn(t, nil, nil, "--host", host, "vm", "list")
	if r.exit != 4 || !strings.HasPrefix(r.err, "Error: QV_ERR_AUTH (-19): the node's authority "+pin+" is not known") || !strings.Contains(r.err, "--ca-pin "+pin) {
		t.Errorf("unknown: %+v", r)
	}
	r = runIn(t, nil, nil, "--host", host, "--ca-pin", otherPin, "vm", "list")
	if r.exit != 4 || !strings.Contains(r.err, pin) || !strings.Contains(r.err, otherPin) {
		t.Errorf("wrong pin: %+v", r)
	}
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", otherPEM, "vm", "list"); r.exit != 4 {
		t.Errorf("wrong file: %+v", r)
	}
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", "/nonexistent", "vm", "list"); r.exit != 3 {
		t.Errorf("no file: %+v", r)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", empty, "vm", "list"); r.exit != 2 {
		t.Errorf("empty file: %+v", r)
	}
}

// A server that shows the pinned certificate but signs its leaf with another
// key is not the node.
func TestPinIsNotEnoughToShow(t *testing.T) {
	victim, err := auth.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	victimLeaf, err := victim.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := tlsNode(t, spec.TLSInfoPolicyPQOnly, func(c *tls.Config) {
		get := c.GetCertificate
		c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			leaf, err := get(h)
			if err != nil {
				return nil, err
			}
			forged := *leaf
			forged.Certificate = [][]byte{leaf.Certificate[0], victimLeaf.Certificate[1]}
			return &forged, nil
		}
	})
	r := runIn(t, nil, nil, "--host", host, "--ca-pin", victim.Fingerprint(), "vm", "list")
	if r.exit != 4 || !strings.Contains(r.err, "QV_ERR_AUTH") {
		t.Errorf("%+v", r)
	}
}

func TestNoClassicalKeyExchange(t *testing.T) {
	host, pin, _ := tlsNode(t, spec.TLSInfoPolicyPQOnly, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} })
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", pin, "vm", "list"); r.exit != 12 {
		t.Errorf("classical node: %+v", r)
	}
	host, pin, _ = tlsNode(t, spec.TLSInfoPolicyCompatible, nil)
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", pin, "vm", "list", "-o", "json"); r.exit != 0 || !strings.Contains(r.out, "MLKEM") {
		t.Errorf("compatible node: %+v", r)
	}
	host, pin, _ = tlsNode(t, spec.TLSInfoPolicyPQOnly, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })
	if r := runIn(t, nil, nil, "--host", host, "--ca-pin", pin, "vm", "list"); r.exit != 12 {
		t.Errorf("TLS 1.2: %+v", r)
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "unix:///var/run/quantavirt/api.sock",
		"unix:///tmp/x":         "unix:///tmp/x",
		"https://10.0.0.7":      "https://10.0.0.7:9400",
		"https://10.0.0.7:1/":   "https://10.0.0.7:1",
		"https://[fe80::1]":     "https://[fe80::1]:9400",
		"node.example":          "https://node.example:9400",
		"node.example:444":      "https://node.example:444",
		"vsock://2":             "vsock://2",
		"vsock://2:1234":        "vsock://2:1234",
		"vsock://99999999999":   "",
		"https://":              "",
		"https://a:b@c":         "",
		"https://10.0.0.7?x=1":  "",
		"https://10.0.0.7:port": "",
	} {
		got, err := parseTarget(in)
		if got.name != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", in, got.name, err)
		}
	}
}

// What writeYAML writes, a YAML library reads as the same document.
func TestYAML(t *testing.T) {
	for _, doc := range []string{
		`{}`, `[]`, `"x"`, `null`, `12`, `{"a":{},"b":[],"c":null,"d":true}`,
		`{"a":[{"b":1,"c":[1,[2,3],{"x":"y"}]},[],{}],"d":{"e":{"f":"g"}}}`,
		`["yes","no","on","null","~","1.5","0x1f","1e3","2026-01-15","a: b","- a","#c"," x","x ","","a\nb","\u0007\u007f\u2028é","<&>","{a}","a,b","@x","'q'","\"q\"","k:v","true"]`,
		`{"yes":1,"1":2,"a b":3,"":4}`,
		`{"n":12345678901234567,"f":1.25,"e":-1e-7}`,
		vmJSON,
	} {
		var b strings.Builder
		if err := writeYAML(&b, []byte(doc)); err != nil {
			t.Errorf("%s: %v", doc, err)
			continue
		}
		back, err := yaml.YAMLToJSON([]byte(b.String()))
		if err != nil {
			t.Errorf("%s: %v\n%s", doc, err, b.String())
			continue
		}
		var want, got any
		if json.Unmarshal([]byte(doc), &want) != nil || json.Unmarshal(back, &got) != nil {
			t.Fatal(doc)
		}
		w, _ := json.Marshal(want)
		g, _ := json.Marshal(got)
		if string(w) != string(g) {
			t.Errorf("%s became %s by\n%s", w, g, b.String())
		}
	}
	if err := writeYAML(io.Discard, []byte(`{"a":`)); err == nil {
		t.Error("cut document")
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 30: "1 GiB", 3_000_000: "2.9 MiB", 500 << 20: "500 MiB", 1<<63 - 1: "8 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
