package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/nodeconfig"
)

const configuredToken = "qv_configured"

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// configure waits until what the configuration names is made, and shows it.
func (n *node) configuration() spec.ConfigurationInfo {
	n.t.Helper()
	var info spec.SystemInfo
	var tasks spec.TaskList
	n.want(200, n.call("GET", "/api/v1/tasks?target=system/configuration", ""), &tasks)
	for _, task := range tasks.Items {
		n.want(200, n.call("GET", "/api/v1/tasks/"+task.ID+"?wait=30", ""), nil)
	}
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	return info.Configuration
}

// eventually repeats a question whose answer needs a moment.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func TestConfigurationAtFirstBoot(t *testing.T) {
	kernel := bzImage()
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(kernel)))
		_, _ = w.Write(kernel)
	}))
	defer files.Close()
	doc := `{
	  "hostnam": "typo",
	  "tokens": [{"hash": "sha256:` + hashOf(configuredToken) + `", "role": "admin", "description": "rack"}],
	  "images": [{"id": "linux", "kind": "kernel", "url": "` + files.URL + `/k", "sha256": "` + hashOf(string(kernel)) + `"},
	             {"id": "bad", "kind": "raw", "url": "` + files.URL + `/k", "sha256": "` + strings.Repeat("0", 64) + `"}],
	  "disks": [{"name": "d1", "size": "1M"}],
	  "vms": [{"name": "one", "memory": {"size": "64M"}, "storage": [{"disk": "d1"}], "boot": {"firmware": "direct", "kernel": "linux"}},
	          {"name": "two", "memory": {"size": "1M"}, "boot": {"firmware": "direct", "kernel": "linux"}}],
	  "tls": {"policy": "compatible"}
	}`
	file := filepath.Join(t.TempDir(), "quantavirt.json")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "--config", file)
	if n.token != "" {
		t.Errorf("a node with a configured token made another: %s", n.token)
	}
	n.token = configuredToken
	eventually(t, "the VM", func() bool { return n.call("GET", "/api/v1/vms/one", "").status == 200 })
	var c spec.ConfigurationInfo
	eventually(t, "the outcome", func() bool { c = n.configuration(); return len(c.Problems) >= 3 })
	var paths []string
	for _, p := range c.Problems {
		paths = append(paths, strings.Fields(p.Message)[0])
	}
	if got := strings.Join(paths, " "); got != "hostnam images[1]: vms[1]:" || c.Sha256 != hashOf(doc) || c.Source != "medium" || c.AppliedAt == nil {
		t.Errorf("problems at %q: %+v", got, c)
	}
	n.want(404, n.call("GET", "/api/v1/images/bad", ""), nil)
	n.want(404, n.call("GET", "/api/v1/vms/two", ""), nil)
	var info spec.SystemInfo
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	if info.TLS.Policy != spec.TLSInfoPolicyCompatible {
		t.Errorf("TLS policy %s", info.TLS.Policy)
	}

	// What was deleted stays so at the next start, and another document is not taken.
	n.want(202, n.call("DELETE", "/api/v1/vms/one?wait=10", ""), nil)
	n.stop()
	if err := os.WriteFile(file, []byte(`{"tls": {"policy": "pq-only"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start("--config", file)
	c = n.configuration()
	if c.Sha256 != hashOf(doc) || !strings.Contains(c.Message, "always") {
		t.Errorf("%+v", c)
	}
	n.want(404, n.call("GET", "/api/v1/vms/one", ""), nil)

	// It is taken if it says so.
	n.stop()
	if err := os.WriteFile(file, []byte(`{"apply": "always", "disks": [{"name": "d2", "size": "1M"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start("--config", file)
	eventually(t, "the second disk", func() bool { return n.call("GET", "/api/v1/disks/d2", "").status == 200 })
	if c = n.configuration(); c.Sha256 == hashOf(doc) || len(c.Problems) != 0 {
		t.Errorf("%+v", c)
	}
}

// A node that waits for a server makes no first token before the server has
// answered; if it has none for the node, it does.
func TestConfigurationFromServer(t *testing.T) {
	answer := make(chan string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case text := <-answer:
			if text == "" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(text))
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	n := newNode(t, "--config", srv.URL)
	if n.token != "" {
		t.Error("a first token before the server has answered")
	}
	answer <- `{"tokens": [{"hash": "sha256:` + hashOf(configuredToken) + `"}], "tls": {"policy": "compatible"}}`
	n.token = configuredToken
	eventually(t, "the token", func() bool { return n.call("GET", "/api/v1/vms", "").status == 200 })
	if c := n.configuration(); c.Source != nodeconfig.FromURL || c.Place != srv.URL {
		t.Errorf("%+v", c)
	}
	close(answer)
}
