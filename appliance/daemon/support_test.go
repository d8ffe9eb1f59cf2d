package daemon

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/appliance/support/archive"
	"quantavirt/appliance/support/archive/archivetest"
)

// Secrets are put wherever a node takes text, and are nowhere in its support bundle.
func TestSupportBundle(t *testing.T) {
	const password, key = "Tr0ub4dor-and-3", "MC4CAQAwBQYDK2VwBCIEIEu9hZ0yT2lq"
	files := httptest.NewServer(http.NotFoundHandler())
	defer files.Close()
	doc := `{
	  "hostname": "node7",
	  "tokens": [{"hash": "sha256:` + hashOf(configuredToken) + `", "role": "admin"}],
	  "images": [{"id": "x", "kind": "raw", "url": "` + strings.Replace(files.URL, "://", "://user:"+password+"@", 1) + `/k", "sha256": "` + strings.Repeat("0", 64) + `"}],
	  "vms": [{"name": "one", "memory": {"size": "64M"}, "description": "-----BEGIN PRIVATE KEY-----\n` + key + `\n-----END PRIVATE KEY-----",
	           "boot": {"firmware": "direct", "cmdline": "root=/dev/vda password=` + password + ` ds=nocloud"}}]
	}`
	file := filepath.Join(t.TempDir(), "quantavirt.json")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "--config", file)
	n.token = configuredToken
	n.ready()
	n.want(201, n.call("POST", "/api/v1/vms", `{"name":"two","memory":{"size":"64M"},"boot":{"firmware":"direct","kernel":"k","cmdline":"a quantavirt.token-hash=sha256:`+hashOf("x")+` b"}}`), nil)
	n.want(404, n.call("GET", "/api/v1/vms/token="+password, ""), nil) // is logged
	n.configuration()                                                  // the outcome is there

	a := n.call("GET", "/api/v1/system/support-bundle", "")
	n.want(200, a, nil)
	if got := a.header.Get("Content-Type") + " " + a.header.Get("Content-Disposition"); !strings.HasPrefix(got, "application/gzip attachment; filename=quantavirt-support-node7-") {
		t.Errorf("header %q", got)
	}
	m, err := archive.Read(bytes.NewReader(a.body), func(archive.Entry) {})
	if err != nil {
		t.Fatal(err)
	}
	if m.Hostname != "node7" || m.NodeID == "" || m.Redacted < 5 {
		t.Errorf("%+v", m)
	}
	for _, p := range m.Parts {
		if p.Name != "kernel" && p.Name != "network" && len(p.Errors) > 0 { // which not everybody may ask
			t.Errorf("%+v", p)
		}
	}
	_, got := archivetest.Files(t, bytes.NewReader(a.body))
	for name, want := range map[string]string{
		"system/info.json":          `"hostname": "node7"`,
		"system/capabilities.json":  `"firmware:direct"`,
		"system/slots.json":         `"items"`,
		"system/measurements.json":  `"pcrs"`,
		"system/disks.json":         "[",
		"system/configuration.json": `"tokens": "[redacted]"`,
		"system/tasks.json":         `"kind": "configuration`,
		"system/images.json":        `"id": "k"`,
		"system/virtual-disks.json": "[]",
		"logs/node.log":             "] [INFO] daemon: the API is served",
		"vms/web/vm.json":           `"state": "`,
		"vms/two/vm.json":           `"cmdline": "a quantavirt.token-hash=[redacted] b"`,
		"quac100/cards.json":        `"provider": "software"`,
		"quac100/keystore.json":     `"used": false`,
		"kernel/meminfo":            "MemTotal:",
		"network/kernel.json":       `"name": "lo"`,
		"network/networks.json":     `"default"`,
		"network/uplink.json":       `"status"`,
		"network/leases.json":       `"default"`,
		"manifest.json":             `"format": 1`,
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s has no %s: %.300s", name, want, got[name])
		}
	}
	for name, text := range got {
		for _, secret := range []string{password, key, configuredToken, hashOf(configuredToken), hashOf("x")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", name, secret)
			}
		}
	}
}
