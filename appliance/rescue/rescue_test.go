package rescue

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/store"
	"quantavirt/appliance/support/archive"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// TestMain is also the process that reads the state file.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == readState {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// pid1 is PID 1's socket.
type pid1 struct {
	mu     sync.Mutex
	boot   initapi.Boot
	calls  []string
	banner chan []string
}

func (p *pid1) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, r.Method+" "+r.URL.Path)
	switch r.URL.Path {
	case "/boot":
		_ = json.NewEncoder(w).Encode(p.boot)
	case "/log":
		_, _ = io.WriteString(w, "[2026-01-15 14:32:01 UTC] [ERROR] daemon: QV_ERR_IO (-11): start: it is broken\n")
	case "/console":
		var b initapi.Banner
		if err := json.NewDecoder(r.Body).Decode(&b); err == nil {
			p.banner <- b.Lines
		}
	case "/reboot", "/poweroff":
		w.WriteHeader(http.StatusAccepted)
	case "/blessed":
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// rig is a node with PID 1, on directories of its own.
type rig struct {
	t       *testing.T
	pid1    *pid1
	dir     string
	o       options
	url, ca string
	token   string
	banner  string
	signals chan os.Signal
	ended   chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	run, err := os.MkdirTemp("", "qv") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	g := &rig{t: t, dir: t.TempDir(), signals: make(chan os.Signal, 1), ended: make(chan error, 1), pid1: &pid1{banner: make(chan []string, 4)}}
	g.pid1.boot = initapi.Boot{Hostname: "node7", BootID: "b1", Options: map[string]string{},
		Rescue: &initapi.Rescue{Active: true, Reason: "the daemon has ended 5 times", RetrySeconds: 300}}
	socket := filepath.Join(run, "init.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: g.pid1}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	g.o, err = parse([]string{"--data-dir", g.dir, "--run-dir", run, "--listen", "127.0.0.1:0", "--vsock-port", "0", "--no-network",
		"--init-socket", socket, "--cgroup", filepath.Join(run, "none"), "--etc", run}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	g.o.self = []string{os.Args[0]}
	return g
}

// start runs the listener until the test ends.
func (g *rig) start() {
	g.t.Helper()
	go func() { g.ended <- Run(g.o, io.Discard, g.signals) }()
	select {
	case lines := <-g.pid1.banner:
		g.banner = strings.Join(lines, "\n")
	case err := <-g.ended:
		g.t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		g.t.Fatal("no banner")
	}
	for line := range strings.Lines(g.banner) {
		if token, ok := strings.CutPrefix(line, "quantavirt: token "); ok {
			g.token = strings.TrimSpace(token)
		}
		if rest, ok := strings.CutPrefix(line, "quantavirt: rescue "); ok {
			_, _ = fmt.Sscanf(rest, "url=%s ca=%s", &g.url, &g.ca)
		}
	}
	g.t.Cleanup(func() {
		select {
		case g.signals <- syscall.SIGTERM:
		default:
		}
	})
}

// end waits until the listener has ended, and wants it to have ended well.
func (g *rig) end() {
	g.t.Helper()
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Errorf("it ended: %v", err)
		}
	case <-time.After(time.Minute):
		g.t.Fatal("it does not end")
	}
}

func (g *rig) call(method, path string, status int, out any) {
	g.t.Helper()
	body := g.fetch(method, path, status)
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			g.t.Fatalf("%s %s: %v in %s", method, path, err, body)
		}
	}
}

func (g *rig) supportBundle() archive.Manifest {
	g.t.Helper()
	m, err := archive.Read(bytes.NewReader(g.fetch("GET", "/api/v1/system/support-bundle", 200)), func(archive.Entry) {})
	if err != nil {
		g.t.Fatal(err)
	}
	return m
}

func (g *rig) fetch(method, path string, status int) []byte {
	g.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the pin decides
		VerifyConnection: func(cs tls.ConnectionState) error {
			ca := cs.PeerCertificates[len(cs.PeerCertificates)-1]
			sum := sha256.Sum256(ca.Raw)
			if "sha256:"+hex.EncodeToString(sum[:]) != g.ca {
				return errors.New("another authority")
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1"})
			return err
		}}}}
	req, err := http.NewRequest(method, g.url+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := client.Do(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != status {
		g.t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, body, status)
	}
	return body
}

// daemonWasHere makes what a daemon leaves: an authority and a token.
func (g *rig) daemonWasHere() {
	g.t.Helper()
	ca, err := auth.OpenAuthority(filepath.Join(g.dir, "keystore"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.ca = ca.Fingerprint()
	db, err := store.Open(filepath.Join(g.dir, "state.db"))
	if err != nil {
		g.t.Fatal(err)
	}
	tokens, err := auth.OpenTokens(db)
	if err != nil {
		g.t.Fatal(err)
	}
	made, err := tokens.Create("kept", spec.TokenRoleAdmin, 0, spec.TokenOriginAPI)
	if err == nil {
		g.token = made.Token
		err = db.Put(store.Settings, "node", map[string]string{"id": "n1"})
	}
	if err := errors.Join(err, db.Put(store.VMs, "web", struct{}{}), db.Close()); err != nil {
		g.t.Fatal(err)
	}
}

// The listener is to its callers who the daemon was.
func TestInPlaceOfTheDaemon(t *testing.T) {
	g := newRig(t)
	g.daemonWasHere()
	before := g.ca
	g.start()
	if g.ca != before || strings.Contains(g.banner, "token") || !strings.Contains(g.banner, "RESCUE MODE\n  the daemon has ended 5 times") {
		t.Errorf("authority %s was %s; banner:\n%s", g.ca, before, g.banner)
	}
	var info spec.SystemInfo
	g.call("GET", "/api/v1/system/info", 200, &info)
	if info.Mode != spec.SystemInfoModeRescue || info.Rescue == nil || info.Rescue.Reason != "the daemon has ended 5 times" ||
		info.NodeID != "n1" || info.Hostname != "node7" || info.Vms.Total != 1 || len(info.Problems) != 1 || info.TLS.CaFingerprint != before {
		t.Errorf("%+v", info)
	}
	for _, route := range []string{"GET /api/v1/vms", "POST /api/v1/vms/web/start", "GET /api/v1/disks", "PUT /api/v1/system/uplink", "GET /readyz"} {
		method, path, _ := strings.Cut(route, " ")
		var e qverr.Body
		g.call(method, path, 503, &e)
		if e.Error.Code != qverr.Again || !strings.Contains(fmt.Sprint(e.Error.Details["hint"]), "restart-daemon") {
			t.Errorf("%s: %+v", route, e)
		}
	}
	var log spec.LogList
	g.call("GET", "/api/v1/logs?source=boot&level=error", 200, &log)
	if len(log.Items) != 1 || log.Items[0].Message != "start: it is broken" {
		t.Errorf("%+v", log)
	}
	m := g.supportBundle()
	if m.NodeID != "n1" || m.Hostname != "node7" || len(m.Parts) != 6 {
		t.Errorf("%+v", m)
	}
	for _, p := range m.Parts {
		if (p.Name == "vms" || p.Name == "quac100") && (len(p.Errors) != 1 || p.Errors[0].Name != "QV_ERR_AGAIN") ||
			(p.Name == "system" || p.Name == "logs") && (len(p.Errors) != 0 || len(p.Files) == 0) {
			t.Errorf("%+v", p)
		}
	}
	g.call("GET", "/healthz", 200, nil)
	g.call("GET", "/api/v1/nowhere", 404, nil)
	var slots spec.SlotList
	g.call("GET", "/api/v1/system/slots", 200, &slots)
	if slots.Message == "" {
		t.Errorf("%+v", slots)
	}
	g.call("POST", "/api/v1/system/rollback", 422, nil) // it did not boot from a slot
	g.call("POST", "/api/v1/system/reboot", 202, nil)
	g.call("POST", "/api/v1/system/poweroff", 202, nil)
	good := g.token
	g.token = "qv_" + strings.Repeat("x", 43)
	g.call("GET", "/api/v1/system/info", 401, nil)
	g.token = good
	g.call("POST", "/api/v1/system/restart-daemon", 202, nil)
	g.end()
	for _, want := range []string{"POST /reboot", "POST /poweroff"} {
		if !slices.Contains(g.pid1.calls, want) {
			t.Errorf("PID 1 was not asked: %s", want)
		}
	}
	if slices.Contains(g.pid1.calls, "POST /ready") {
		t.Error("PID 1 was told that the daemon is ready")
	}
}

// What of the state is broken is done without.
func TestBrokenState(t *testing.T) {
	garbage := bytes.Repeat([]byte("garbage "), 8192)
	hashed := "qv_" + strings.Repeat("k", 43)
	sum := sha256.Sum256([]byte(hashed))
	for _, c := range []struct {
		name    string
		breakIt func(g *rig)
		hash    bool // the kernel command line trusts a token
		token   bool // a token is made
		kept    bool // the authority stays
	}{
		{"no state", func(g *rig) { _ = os.RemoveAll(g.dir) }, false, true, false},
		{"state file, with a token on the command line", func(g *rig) { g.write("state.db", garbage) }, true, false, true},
		{"state file, without", func(g *rig) { g.write("state.db", garbage) }, false, true, true},
		{"pages of the state file", func(g *rig) { g.write("state.db", g.damaged()) }, false, true, true},
		{"cut state file", func(g *rig) { g.write("state.db", g.read("state.db")[:8192]) }, true, false, true},
		{"authority", func(g *rig) { g.write("keystore/ca.pem", garbage) }, true, false, false},
		{"uplink", func(g *rig) { g.write("uplink.json", garbage) }, true, false, true},
		{"data volume that is a file", func(g *rig) { _ = os.RemoveAll(g.dir); _ = os.WriteFile(g.dir, garbage, 0o600) }, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			g.daemonWasHere()
			g.token = ""
			before := g.ca
			if c.hash {
				g.pid1.boot.Options["token-hash"] = "sha256:" + hex.EncodeToString(sum[:])
				g.token = hashed
			}
			c.breakIt(g)
			g.start()
			if made := strings.Contains(g.banner, "quantavirt: token"); made != c.token {
				t.Errorf("a token was made: %v; banner:\n%s", made, g.banner)
			}
			if kept := g.ca == before; kept != c.kept {
				t.Errorf("the authority stayed: %v", kept)
			}
			var info spec.SystemInfo
			g.call("GET", "/api/v1/system/info", 200, &info)
			if info.Mode != spec.SystemInfoModeRescue {
				t.Errorf("%+v", info)
			}
			g.call("POST", "/api/v1/system/reboot", 202, nil)
		})
	}
}

func (g *rig) write(name string, data []byte) {
	if err := os.WriteFile(filepath.Join(g.dir, name), data, 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return data
}

// damaged is the state file with all but its two meta pages overwritten.
func (g *rig) damaged() []byte {
	data := g.read("state.db")
	for i := 2 * os.Getpagesize(); i < len(data); i++ {
		data[i] = 0xff
	}
	return data
}

// A daemon that hangs holds the lock of the state file.
func TestLockedState(t *testing.T) {
	g := newRig(t)
	g.daemonWasHere()
	db, err := store.Open(filepath.Join(g.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	g.start()
	if !strings.Contains(g.banner, "quantavirt: token") {
		t.Errorf("banner:\n%s", g.banner)
	}
	g.call("GET", "/api/v1/system/info", 200, nil)
}

// Who does not use the listener gets the daemon again.
func TestMakesWay(t *testing.T) {
	g := newRig(t)
	g.pid1.boot.Rescue.RetrySeconds = 1
	g.start()
	g.end()
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"more"}} {
		if _, err := parse(args, io.Discard); !errors.Is(err, qverr.Inval) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if Main([]string{readState, "/no/such/file"}) == 0 {
		t.Error("no state was read")
	}
}
