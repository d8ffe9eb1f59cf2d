package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Whatever is wrong has its code, status and exit status, and leaves nothing
// behind.
func TestBadInput(t *testing.T) {
	n := newNode(t)
	n.ready()
	other := func(members string) string {
		return strings.Replace(strings.TrimSuffix(good, "}"), `"web"`, `"other"`, 1) + members + "}"
	}
	long := strings.Repeat("n", 4097)
	before := n.inventory()
	for _, c := range []struct {
		name, method, path, doc string
		status                  int
		code                    qverr.Code
		exit                    int
		where                   string // details.path or details.parameter
	}{
		{"unknown key", "POST", "/api/v1/vms", other(`,"colour":"red"`), 422, qverr.Config, 2, "colour"},
		{"unknown key below", "POST", "/api/v1/vms", other(`,"cpu":{"cuont":1}`), 422, qverr.Config, 2, "cpu.cuont"},
		{"long name", "POST", "/api/v1/vms", `{"name":"` + long + `","memory":{"size":"64M"}}`, 422, qverr.Config, 2, "name"},
		{"long name in a path", "GET", "/api/v1/vms/" + long, "", 404, qverr.NoEnt, 3, ""},
		{"long name in a query", "POST", "/api/v1/images?kind=raw&id=" + long, "x", 400, qverr.Inval, 2, "id"},
		{"negative memory", "POST", "/api/v1/vms", strings.Replace(other(""), `"64M"`, `-1`, 1), 422, qverr.Config, 2, "memory.size"},
		{"negative memory as text", "POST", "/api/v1/vms", strings.Replace(other(""), `"64M"`, `"-64M"`, 1), 422, qverr.Config, 2, "memory.size"},
		{"no such disk", "POST", "/api/v1/vms", other(`,"storage":[{"disk":"none"}]`), 404, qverr.NoEnt, 3, "storage[0].disk"},
		{"no such kernel", "POST", "/api/v1/vms", strings.Replace(other(""), `"k"`, `"none"`, 1), 404, qverr.NoEnt, 3, "boot.kernel"},
		{"no such network", "POST", "/api/v1/vms", other(`,"network":[{"network":"none"}]`), 404, qverr.NoEnt, 3, "network[0].network"},
		{"path elsewhere", "POST", "/api/v1/vms", other(`,"storage":[{"path":"/etc/passwd"}]`), 422, qverr.Config, 2, "storage[0].path"},
		{"same name", "POST", "/api/v1/vms", good, 409, qverr.Exist, 5, ""},
		{"topology", "POST", "/api/v1/vms", other(`,"cpu":{"count":2,"topology":{"sockets":1,"cores":1,"threads":1}}`), 422, qverr.Topology, 1, "cpu.topology"},
		{"firmware", "POST", "/api/v1/vms", `{"name":"other","memory":{"size":"64M"},"boot":{"firmware":"ovmf"}}`, 422, qverr.Unsupported, 125, "boot.firmware"},
		{"cut JSON", "POST", "/api/v1/vms", `{"name":"other"`, 400, qverr.Config, 2, ""},
		{"duplicate key", "POST", "/api/v1/vms", `{"name":"a","name":"b","memory":{"size":"64M"}}`, 400, qverr.Config, 2, ""},
		{"two documents", "POST", "/api/v1/vms", good + good, 400, qverr.Config, 2, ""},
		{"no UTF-8", "POST", "/api/v1/vms", "{\"name\":\"\xff\"}", 400, qverr.Config, 2, ""},
		{"deep nesting", "POST", "/api/v1/vms", strings.Repeat("[", 100000), 400, qverr.Config, 2, ""},
		{"a list", "POST", "/api/v1/vms", `[]`, 400, qverr.Config, 2, ""},
		{"empty body", "POST", "/api/v1/vms", "", 400, qverr.Config, 2, ""},
		{"wrong type", "POST", "/api/v1/vms", strings.Replace(other(""), `"64M"`, `true`, 1), 400, qverr.Config, 2, "memory.size"},
		{"fraction", "POST", "/api/v1/vms", other(`,"cpu":{"count":1.5}`), 400, qverr.Config, 2, "cpu.count"},
		{"stop what does not run", "POST", "/api/v1/vms/web/stop", `{"force":true}`, 409, qverr.State, 5, ""},
		{"attest what does not run", "POST", "/api/v1/vms/web/attest", `{"nonce":"` + strings.Repeat("00", 16) + `"}`, 409, qverr.State, 5, ""},
		{"attest what is not there", "POST", "/api/v1/vms/none/attest", `{"nonce":"` + strings.Repeat("00", 16) + `"}`, 404, qverr.NoEnt, 3, ""},
		{"attest with a short nonce", "POST", "/api/v1/vms/web/attest", `{"nonce":"00"}`, 422, qverr.Config, 2, "nonce"},
		{"attest without a nonce", "POST", "/api/v1/vms/web/attest", `{}`, 422, qverr.Config, 2, "nonce"},
		{"stop with an unknown key", "POST", "/api/v1/vms/web/stop", `{"hard":true}`, 422, qverr.Config, 2, "hard"},
		{"pause what does not run", "POST", "/api/v1/vms/web/pause", "", 409, qverr.State, 5, ""},
		{"start of nothing", "POST", "/api/v1/vms/none/start", "", 404, qverr.NoEnt, 3, ""},
		{"stats of what does not run", "GET", "/api/v1/vms/web/stats", "", 409, qverr.State, 5, ""},
		{"rename", "PATCH", "/api/v1/vms/web", `{"name":"other"}`, 422, qverr.Config, 2, "name"},
		{"patch with a list", "PATCH", "/api/v1/vms/web", `[1]`, 400, qverr.Config, 2, ""},
		{"delete of a used kernel", "DELETE", "/api/v1/images/k", "", 409, qverr.Busy, 5, ""},
		{"no kernel at all", "POST", "/api/v1/images?id=x&kind=kernel", strings.Repeat("no kernel ", 1000), 400, qverr.Inval, 2, ""},
		{"empty upload", "POST", "/api/v1/images?id=x&kind=raw", "", 400, qverr.Inval, 2, ""},
		{"unknown kind", "POST", "/api/v1/images?id=x&kind=floppy", "x", 400, qverr.Inval, 2, "kind"},
		{"no kind", "POST", "/api/v1/images?id=x", "x", 400, qverr.Inval, 2, "kind"},
		{"image twice", "POST", "/api/v1/images?id=k&kind=raw", "x", 409, qverr.Exist, 5, ""},
		{"disk of no size", "POST", "/api/v1/disks", `{"name":"d"}`, 422, qverr.Config, 2, "size"},
		{"disk of negative size", "POST", "/api/v1/disks", `{"name":"d","size":-5}`, 422, qverr.Config, 2, "size"},
		{"disk beyond the volume", "POST", "/api/v1/disks", `{"name":"d","size":"900T"}`, 507, qverr.NoSpc, 7, ""},
		{"qcow2", "POST", "/api/v1/disks", `{"name":"d","size":"1M","format":"qcow2"}`, 422, qverr.Unsupported, 125, "format"},
		{"unknown query", "GET", "/api/v1/vms?colour=red", "", 400, qverr.Inval, 2, "colour"},
		{"bad wait", "POST", "/api/v1/vms/web/start?wait=long", "", 400, qverr.Inval, 2, "wait"},
		{"wait too long", "POST", "/api/v1/vms/web/start?wait=100000", "", 400, qverr.Inval, 2, "wait"},
		{"no such route", "GET", "/api/v1/teapots", "", 404, qverr.NoEnt, 3, ""},
		{"no such route at all", "GET", "/", "", 404, qverr.NoEnt, 3, ""},
		{"method", "PUT", "/api/v1/vms", good, 400, qverr.Inval, 2, ""},
		{"no such task", "GET", "/api/v1/tasks/1", "", 404, qverr.NoEnt, 3, ""},
		{"no such token", "DELETE", "/api/v1/tokens/1", "", 404, qverr.NoEnt, 3, ""},
		{"no such code", "GET", "/api/v1/system/errors?code=-999", "", 404, qverr.NoEnt, 3, ""},
		{"token of an unknown role", "POST", "/api/v1/tokens", `{"role":"king"}`, 422, qverr.Config, 2, "role"},
		{"reboot without PID 1", "POST", "/api/v1/system/reboot", "", 422, qverr.Unsupported, 125, ""},
		{"cards", "GET", "/api/v1/crypto/quac100", "", 503, qverr.QUACNotFound, 6, ""},
		{"console without a guest", "GET", "/api/v1/vms/none/console", "", 404, qverr.NoEnt, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := n.call(c.method, c.path, c.doc)
			e := a.err(t)
			if a.status != c.status || e.Code != c.code {
				t.Fatalf("%d %s (%d), want %d and %d: %.300s", a.status, e.Name, e.Code, c.status, c.code, a.body)
			}
			row, ok := qverr.Lookup(e.Code)
			if !ok || row.ExitCode != c.exit || row.Name != e.Name || row.Subsystem != e.Subsystem || e.Message == "" || e.Detail == "" {
				t.Errorf("exit %d, want %d: %+v", row.ExitCode, c.exit, e)
			}
			if e.RequestID == "" || a.header.Get("X-Request-Id") != e.RequestID || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("request id %q, header %v", e.RequestID, a.header)
			}
			where, _ := e.Details["path"].(string)
			if where == "" {
				where, _ = e.Details["parameter"].(string)
			}
			if c.where != "" && where != c.where {
				t.Errorf("details %v, want %s", e.Details, c.where)
			}
			if len(a.body) > 2000 {
				t.Errorf("the answer repeats the input: %d bytes", len(a.body))
			}
		})
	}
	if a := n.call("PUT", "/api/v1/vms", good); !strings.Contains(a.header.Get("Allow"), "POST") {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	if after := n.inventory(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

func TestStartWithoutKVM(t *testing.T) {
	n := newNode(t)
	n.ready()
	var info struct {
		KVM struct {
			Available bool `json:"available"`
		} `json:"kvm"`
	}
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	if info.KVM.Available {
		t.Skip("this host has KVM")
	}
	a := n.call("POST", "/api/v1/vms/web/start?wait=10", "")
	if e := a.err(t); a.status != 503 || e.Code != qverr.NoVMX {
		t.Errorf("%d %+v", a.status, e)
	}
}

// A body of 100 MB is refused by its length, and, without a length, where the
// limit is; the client gets its answer in both cases, also if it sends all
// before it reads.
func TestHugeBody(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		name           string
		length         int64
		expectContinue bool
	}{{"asks first", 100 << 20, true}, {"just sends", 100 << 20, false}, {"chunked", -1, false}} {
		t.Run(c.name, func(t *testing.T) {
			req := n.request("POST", "/api/v1/vms", io.LimitReader(zeroes{}, 100<<20))
			req.ContentLength = c.length
			if c.expectContinue {
				req.Header.Set("Expect", "100-continue")
			}
			a := n.do(req)
			if e := a.err(t); a.status != 400 || e.Code != qverr.Inval {
				t.Errorf("%d %+v", a.status, e)
			}
		})
	}
	n.want(200, n.call("GET", "/api/v1/vms", ""), nil)
}

func TestNoSpaceBeforeTheFirstByte(t *testing.T) {
	n := newNode(t)
	conn := n.dial()
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "POST /api/v1/disks?name=d HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\n"+
		"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", n.token, int64(1)<<50)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if e := (answer{resp.StatusCode, resp.Header, body}).err(t); resp.StatusCode != 507 || e.Code != qverr.NoSpc || e.Details["free_bytes"] == nil {
		t.Errorf("%d %+v", resp.StatusCode, e)
	}
}

func TestCutUpload(t *testing.T) {
	n := newNode(t)
	before := n.inventory()
	for _, path := range []string{"/api/v1/disks?name=cut", "/api/v1/images?kind=raw&id=cut"} {
		conn := n.dial()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
			path, n.token, 8<<20)
		if _, err := io.CopyN(conn, zeroes{}, 4<<20); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		n.logged(`"QV_ERR_IO"`, "cut after", strings.Split(path, "?")[0])
	}
	if after := n.inventory(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	n.want(201, n.upload("/api/v1/disks?name=cut", make([]byte, 1<<20)), nil)
}

// A client that never ends its headers, or its body, does not keep its
// connection for ever: the deadlines are set. What waits here is only the
// header limit, which is the shortest.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as the header limit")
	}
	n := newNode(t)
	conn := n.dial()
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: n\r\n")
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection was not closed: %v", err)
	}
}
