package qemutests

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

// zeroes is a body of a length that costs no memory.
func zeroes(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Each wrong request gets its code and status, each wrong command its exit
// code, and nothing is left behind.
func TestBadInput(t *testing.T) {
	n := spine(t)
	defineVM(t, n, "good", nil)
	act(t, n, "good", "start")
	console := attach(t, n, "good")
	ready(t, console)
	before := inventory(t, n)

	good := func(change func(map[string]any)) map[string]any {
		c := map[string]any{"name": "bad", "memory": map[string]any{"size": "64M"},
			"boot": map[string]any{"firmware": "direct", "kernel": "linux"}}
		change(c)
		return c
	}
	for _, c := range []struct {
		name         string
		method, path string
		body         any
		status       int
		code         string
		details      string
	}{
		{"unknown key", "POST", "/api/v1/vms", good(func(c map[string]any) { c["colour"] = "red" }), 422, "QV_ERR_CONFIG", "colour"},
		{"long name", "POST", "/api/v1/vms", good(func(c map[string]any) { c["name"] = strings.Repeat("n", 4097) }), 422, "QV_ERR_CONFIG", "name"},
		{"negative memory", "POST", "/api/v1/vms", good(func(c map[string]any) { c["memory"] = map[string]any{"size": -1} }), 422, "QV_ERR_CONFIG", "memory"},
		{"no such disk", "POST", "/api/v1/vms", good(func(c map[string]any) { c["storage"] = []any{map[string]any{"disk": "none"}} }), 404, "QV_ERR_NOENT", ""},
		{"same name", "POST", "/api/v1/vms", good(func(c map[string]any) { c["name"] = "good" }), 409, "QV_ERR_EXIST", ""},
		{"start twice", "POST", "/api/v1/vms/good/start", nil, 409, "QV_ERR_STATE", ""},
		{"malformed JSON", "POST", "/api/v1/vms", []byte(`{"name": "bad",`), 400, "QV_ERR_CONFIG", ""},
		{"no such VM", "POST", "/api/v1/vms/none/start", nil, 404, "QV_ERR_NOENT", ""},
		{"topology", "POST", "/api/v1/vms", good(func(c map[string]any) {
			c["cpu"] = map[string]any{"count": 2, "topology": map[string]any{"sockets": 1, "cores": 3, "threads": 1}}
		}), 422, "QV_ERR_TOPOLOGY", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := n.Do(t.Context(), c.method, c.path, c.body)
			if err != nil {
				t.Fatal(err)
			}
			refused(t, a, c.status, c.code, c.details)
		})
	}
	t.Run("too much memory", func(t *testing.T) { tooMuchMemory(t, n) })
	t.Run("wrong token", func(t *testing.T) {
		other := *n
		other.Token = "qv_" + strings.Repeat("A", 43)
		a, err := other.Do(t.Context(), "GET", "/api/v1/vms", nil)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, a, 401, "QV_ERR_AUTH", "")
		if _, stderr, exit := cli(t, &other, "vm", "list"); exit != 4 || !strings.HasPrefix(stderr, "Error: QV_ERR_AUTH (-19): ") {
			t.Errorf("exit %d: %s", exit, stderr)
		}
	})
	t.Run("100 MB of JSON", func(t *testing.T) {
		tooLong(t, n, "/api/v1/vms", "application/json", 100<<20, 400, "QV_ERR_INVAL")
	})
	t.Run("kernel that is none", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(file, bytes.Repeat([]byte("no kernel "), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, exit := cli(t, n, "image", "upload", "nokernel", "--kind", "kernel", "--file", file)
		if exit != 2 || !strings.Contains(stderr, "Error: QV_ERR_INVAL (-5): ") {
			t.Errorf("exit %d: %s", exit, stderr)
		}
	})
	t.Run("more than the volume holds", func(t *testing.T) {
		tooLong(t, n, "/api/v1/disks?name=big", "application/octet-stream", 1<<40, 507, "QV_ERR_NOSPC")
	})
	t.Run("upload cut in the middle", func(t *testing.T) { cutUpload(t, n) })
	t.Run("no such host", func(t *testing.T) {
		other := *n
		other.URL = "https://127.0.0.1:1"
		if _, _, exit := cli(t, &other, "vm", "list"); exit != 12 {
			t.Errorf("exit %d", exit)
		}
	})
	if after := inventory(t, n); after != before {
		t.Errorf("left behind:\n%s\nthere was before:\n%s", after, before)
	}
	if v := getVM(t, n, "good"); v.State != "RUNNING" {
		t.Errorf("the VM that ran is %s", v.State)
	}
}

// refused checks an error body.
func refused(t *testing.T, a lab.Answer, status int, code, path string) {
	t.Helper()
	var body struct {
		Error struct {
			Name      string         `json:"name"`
			RequestID string         `json:"request_id"`
			Details   map[string]any `json:"details"`
		} `json:"error"`
	}
	if err := a.Decode(&body); err != nil {
		t.Fatal(err)
	}
	if a.Status != status || body.Error.Name != code {
		t.Errorf("got %d %s, want %d %s: %s", a.Status, body.Error.Name, status, code, a.Body)
	}
	if body.Error.RequestID == "" {
		t.Errorf("no request id: %s", a.Body)
	}
	if path != "" && !strings.Contains(fmt.Sprint(body.Error.Details["path"]), path) {
		t.Errorf("details name %v, want %s", body.Error.Details, path)
	}
}

// inventory is what the node holds.
func inventory(t *testing.T, n *lab.Node) string {
	t.Helper()
	var all strings.Builder
	for _, kind := range []string{"vms", "disks", "images"} {
		var list struct {
			Items []map[string]any `json:"items"`
		}
		if err := n.Call(t.Context(), http.MethodGet, "/api/v1/"+kind, nil, &list); err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			fmt.Fprintln(&all, kind, item["name"], item["id"])
		}
	}
	files, err := n.Shell(t.Context(), "ls -1 /var/lib/quantavirt/disks /var/lib/quantavirt/images")
	if err != nil {
		t.Fatal(err)
	}
	return all.String() + files
}

// tooMuchMemory: a VM that the node cannot hold is refused at its start.
func tooMuchMemory(t *testing.T, n *lab.Node) {
	defineVM(t, n, "fat", func(c map[string]any) { c["memory"] = map[string]any{"size": "64G"} })
	_, stderr, exit := cli(t, n, "vm", "start", "fat")
	if exit != 7 || !strings.HasPrefix(stderr, "Error: QV_ERR_NOMEM (-2): ") {
		t.Errorf("exit %d: %s", exit, stderr)
	}
	if v := getVM(t, n, "fat"); v.State != "CREATED" {
		t.Errorf("state %s", v.State)
	}
	if err := n.Call(t.Context(), http.MethodDelete, "/api/v1/vms/fat?wait=10", nil, nil); err != nil {
		t.Error(err)
	}
}

// tooLong announces a body that is refused by its length: the node answers
// before it read any of it.
func tooLong(t *testing.T, n *lab.Node, path, kind string, length int64, status int, code string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL+path, zeroes(length))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = length
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+n.Token)
	req.Header.Set("Expect", "100-continue")
	client := n.Client()
	client.Transport.(*http.Transport).ExpectContinueTimeout = 30 * time.Second
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, lab.Answer{Status: resp.StatusCode, Body: body}, status, code, "")
}

// cutUpload sends half a disk and hangs up.
func cutUpload(t *testing.T, n *lab.Node) {
	conn, err := (&tls.Dialer{Config: n.TLS()}).DialContext(t.Context(), "tcp", strings.TrimPrefix(n.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /api/v1/disks?name=cut HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", n.Token, 8<<20)
	if _, err := io.Copy(conn, io.LimitReader(zero{}, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	// The node logs it; wait for that line and no longer.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := n.Shell(ctx, "cat /var/lib/quantavirt/logs/*.log | grep cut")
		if err == nil && strings.Contains(log, `"QV_ERR_IO"`) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no line about the cut upload in the log: %s", log)
		case <-tick.C:
		}
	}
}
