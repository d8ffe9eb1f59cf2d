package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
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
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

func TestFirstBootAndRestart(t *testing.T) {
	n := newNode(t)
	if len(n.token) != 46 || !strings.HasPrefix(n.ca, "sha256:") {
		t.Fatalf("token %q, authority %q", n.token, n.ca)
	}
	n.ready()
	n.want(201, n.call("POST", "/api/v1/disks", `{"name":"d","size":"10M"}`), nil)
	var vm spec.VM
	n.want(200, n.call("PATCH", "/api/v1/vms/web", `{"storage":[{"disk":"d"}],"network":[{}]}`), &vm)
	before, ca, first := n.inventory(), n.ca, n.token
	n.stop()
	n.token = ""
	n.start()
	if n.token != "" || n.ca != ca {
		t.Errorf("a restart showed the token %q and the authority %s", n.token, n.ca)
	}
	n.token = first
	if after := n.inventory(); after != before {
		t.Errorf("after the restart:\n%s\nbefore:\n%s", after, before)
	}
	var again spec.VM
	n.want(200, n.call("GET", "/api/v1/vms/web", ""), &again)
	if again.UUID != vm.UUID || again.Nics[0].MAC != vm.Nics[0].MAC || again.CID != vm.CID {
		t.Errorf("%+v became %+v", vm, again)
	}
	data, err := os.ReadFile(filepath.Join(n.dir, "configs", "web.json"))
	if err != nil || !json.Valid(data) {
		t.Errorf("configs/web.json: %v", err)
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "logs", "quantavirt.log"))
	if strings.Contains(string(log), first) {
		t.Error("the log has the token")
	}
	a := n.call("DELETE", "/api/v1/vms/web?wait=10", "")
	var task spec.Task
	n.want(202, a, &task)
	if task.State != spec.TaskStateSucceeded || a.header.Get("Location") != "/api/v1/tasks/"+task.ID {
		t.Errorf("task %+v, Location %s", task, a.header.Get("Location"))
	}
	n.want(404, n.call("GET", "/api/v1/vms/web", ""), nil)
	n.want(204, n.call("DELETE", "/api/v1/disks/d", ""), nil)
	n.want(204, n.call("DELETE", "/api/v1/images/k", ""), nil)
}

func TestProbesAndPanes(t *testing.T) {
	n := newNode(t)
	anonymous := n.token
	n.token = ""
	for _, probe := range []string{"/healthz", "/readyz"} {
		n.want(200, n.call("GET", probe, ""), nil)
	}
	n.token = anonymous
	for _, path := range []string{"/system/info", "/system/capabilities", "/system/disks", "/system/pci", "/system/errors", "/system/errors?code=-3", "/system/errors?code=QV_ERR_NOVMX",
		"/networks", "/networks/default", "/networks/default/leases", "/crypto/qrng", "/tasks", "/tokens", "/images", "/disks", "/vms"} {
		a := n.call("GET", "/api/v1"+path, "")
		n.want(200, a, nil)
		if !json.Valid(a.body) || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, a.header)
		}
	}
	var info spec.SystemInfo
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	if info.TLS.Policy != spec.TLSInfoPolicyPQOnly || len(info.TLS.KeyExchanges) != 2 || info.TLS.CaFingerprint != n.ca || info.NodeID == "" ||
		info.Memory.TotalBytes == 0 || info.Daemon.Pid != os.Getpid() || info.Network.State != spec.UplinkInfoStateOff {
		t.Errorf("%+v", info)
	}
	if !info.KVM.Available && (info.KVM.Problem == nil || info.KVM.Problem.Name != "QV_ERR_NOVMX" || info.KVM.Problem.Recovery == "") {
		t.Errorf("no KVM is not said: %+v", info.KVM)
	}
	if len(info.Problems) == 0 {
		t.Error("a host without card has no problems")
	}
}

func TestTokensAndRoles(t *testing.T) {
	n := newNode(t)
	admin := n.token
	var made spec.TokenSecret
	n.want(201, n.call("POST", "/api/v1/tokens", `{"description":"eyes","role":"viewer"}`), &made)
	if a := n.call("GET", "/api/v1/tokens", ""); strings.Contains(string(a.body), made.Token) || strings.Contains(string(a.body), "sha256") {
		t.Errorf("secrets in %s", a.body)
	}
	n.token = made.Token
	n.want(200, n.call("GET", "/api/v1/vms", ""), nil)
	a := n.call("POST", "/api/v1/disks", `{"name":"d","size":"1M"}`)
	if e := a.err(t); a.status != 403 || e.Code != qverr.Perm {
		t.Errorf("a viewer writes: %d %+v", a.status, e)
	}
	upgrade := n.request("GET", "/api/v1/vms/web/console", nil)
	upgrade.Header.Set("Upgrade", "quantavirt-console")
	upgrade.Header.Set("Connection", "Upgrade")
	if a := n.do(upgrade); a.status != 403 {
		t.Errorf("a viewer types: %d", a.status)
	}
	for name, token := range map[string]string{"wrong": "qv_" + strings.Repeat("A", 43), "short": "qv_", "empty": "", "other": "hello world"} {
		n.token = token
		a := n.call("GET", "/api/v1/vms", "")
		if e := a.err(t); a.status != 401 || e.Code != qverr.Auth || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s token: %d %+v", name, a.status, e)
		}
	}
	n.token = ""
	if a := n.call("GET", "/api/v1/teapots", ""); a.status != 401 {
		t.Errorf("a stranger learns which routes exist: %d", a.status)
	}
	n.token = admin
	n.want(204, n.call("DELETE", "/api/v1/tokens/"+made.Info.ID, ""), nil)
	n.token = made.Token
	if a := n.call("GET", "/api/v1/vms", ""); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
}

func TestUnixSocket(t *testing.T) {
	n := newNode(t)
	n.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.run, "api.sock"))
	}}}
	n.token, n.url = "", "http://node"
	n.want(200, n.call("GET", "/api/v1/system/info", ""), nil)
	n.want(201, n.call("POST", "/api/v1/disks", `{"name":"d","size":"1M"}`), nil)
}

func TestTLS(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"X25519MLKEM768", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}, true},
		{"SecP384r1MLKEM1024", &tls.Config{CurvePreferences: []tls.CurveID{tls.SecP384r1MLKEM1024}}, true},
		{"X25519", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, false},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, false},
	} {
		c.config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", strings.TrimPrefix(n.url, "https://"), c.config)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func TestCompatibleTLS(t *testing.T) {
	n := newNode(t, "--tls-policy", "compatible")
	conn, err := tls.Dial("tcp", strings.TrimPrefix(n.url, "https://"), &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	var info spec.SystemInfo
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	if info.TLS.Policy != spec.TLSInfoPolicyCompatible || len(info.TLS.KeyExchanges) != 3 {
		t.Errorf("%+v", info.TLS)
	}
}

func TestUploadAndConsoleText(t *testing.T) {
	n := newNode(t)
	n.ready()
	data := []byte(strings.Repeat("0123456789abcdef", 1000))
	var disk spec.Disk
	n.want(201, n.upload("/api/v1/disks?name=d&size=1M", data), &disk)
	sum := sha256.Sum256(data)
	if disk.Sha256 != hex.EncodeToString(sum[:]) || disk.SizeBytes != 1<<20 {
		t.Errorf("%+v", disk)
	}
	a := n.call("GET", "/api/v1/vms/web/console", "")
	n.want(200, a, nil)
	if len(a.body) != 0 {
		t.Errorf("a VM that never ran printed %q", a.body)
	}
	upgrade := n.request("GET", "/api/v1/vms/web/console", nil)
	upgrade.Header.Set("Upgrade", "quantavirt-console")
	upgrade.Header.Set("Connection", "Upgrade")
	if a := n.do(upgrade); a.status != 409 || a.err(t).Code != qverr.State {
		t.Errorf("attach to a VM that does not run: %d", a.status)
	}
	upgrade.Header.Set("Upgrade", "h2c")
	if a := n.do(upgrade); a.status != 400 {
		t.Errorf("another protocol: %d", a.status)
	}
}

// fakeInit is PID 1's socket as initapi describes it.
type fakeInit struct {
	mu     sync.Mutex
	boot   initapi.Boot
	banner chan []string
	calls  []string
	waits  chan struct{}      // closed when the boot steps have ended
	cards  chan initapi.Cards // what looks for cards find
	looks  []string           // after which the daemon waits for one

	dataDir string
	early   int // files in it before the data volume is mounted
}

func (f *fakeInit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	switch r.URL.Path {
	case "/boot":
		switch q := r.URL.Query(); {
		case q.Get("wait") == "1":
			<-f.waits
		case q.Get("step") == "data-volume": // whose place is the directory from now on
			entries, err := os.ReadDir(f.dataDir)
			if f.early = len(entries); err != nil {
				f.early = -1
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(f.boot)
	case "/console":
		var b initapi.Banner
		if err := json.NewDecoder(r.Body).Decode(&b); err == nil {
			f.banner <- b.Lines
		}
	case "/cards":
		f.mu.Lock()
		f.looks = append(f.looks, r.URL.Query().Get("after"))
		f.mu.Unlock()
		select {
		case c := <-f.cards:
			_ = json.NewEncoder(w).Encode(c)
		case <-r.Context().Done():
		}
	case "/ready":
	case "/reboot", "/poweroff":
		w.WriteHeader(http.StatusAccepted)
	default:
		http.NotFound(w, r)
	}
}

func TestWithPID1(t *testing.T) {
	run, err := os.MkdirTemp("", "qv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	token := "qv_" + strings.Repeat("k", 43)
	sum := sha256.Sum256([]byte(token))
	f := &fakeInit{banner: make(chan []string, 4), waits: make(chan struct{}), cards: make(chan initapi.Cards), early: -1, dataDir: t.TempDir(), boot: initapi.Boot{
		Hostname: "node7", BootID: "b1", CardLook: 1, Kernel: "6.12", Options: map[string]string{"token-hash": "sha256:" + hex.EncodeToString(sum[:])},
		Steps: []initapi.Step{{Name: "mounts", TookMS: 3}, {Name: "iommu", Problem: &initapi.Problem{Code: int32(qverr.NoIOMMU), Name: "QV_ERR_NOIOMMU"}}},
	}}
	socket := filepath.Join(run, "init.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })

	o, err := parse([]string{"--data-dir", f.dataDir, "--run-dir", run, "--listen", "127.0.0.1:0", "--vsock-port", "0", "--no-network", "--init-socket", socket}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, run: run, dir: o.dataDir, token: token, signals: make(chan os.Signal, 1), ended: make(chan error, 1)}
	go func() { n.ended <- Run(o, io.Discard, n.signals) }()
	select {
	case lines := <-f.banner:
		for _, line := range lines {
			if strings.Contains(line, "quantavirt: token") {
				t.Errorf("a token is made although one is trusted: %s", line)
			}
			n.banner(line)
		}
	case err := <-n.ended:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("no banner")
	}
	n.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: n.tls()}}
	close(f.waits)
	var info spec.SystemInfo
	n.want(200, n.call("GET", "/api/v1/system/info", ""), &info)
	if info.Hostname != "node7" || len(info.BootSteps) != 2 || info.DataVolume.Persistent || info.DataVolume.Message == "" {
		t.Errorf("%+v", info)
	}
	if len(info.Problems) < 2 {
		t.Errorf("problems %+v", info.Problems)
	}
	noGroup := initapi.Problem{Code: int32(qverr.NoIOMMU), Name: "QV_ERR_NOIOMMU", Message: "no group"}
	f.cards <- initapi.Cards{Look: 2, Cards: []initapi.Card{{Address: "0000:01:00.0", Group: -1, Problem: &noGroup}}}
	f.cards <- initapi.Cards{Look: 3, Cards: []initapi.Card{{Address: "0000:02:00.0", Group: -1, Problem: &noGroup}}} // taken after the one before was used
	f.cards <- initapi.Cards{Look: 4, Cards: []initapi.Card{{Address: "0000:03:00.0", Group: -1, Problem: &noGroup}}}
	var quac spec.QUAC100
	n.want(200, n.call("GET", "/api/v1/crypto/quac100", ""), &quac)
	if at := quac.Cards[0].Address; len(quac.Cards) != 1 || at != "0000:02:00.0" && at != "0000:03:00.0" {
		t.Errorf("a card that was put in: %+v", quac.Cards)
	}
	n.want(202, n.call("POST", "/api/v1/system/reboot", ""), nil)
	n.want(202, n.call("POST", "/api/v1/system/poweroff", ""), nil)
	n.client.CloseIdleConnections()
	n.signals <- syscall.SIGTERM
	select {
	case err := <-n.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon does not end")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.looks[:3], []string{"1", "2", "3"}) {
		t.Errorf("looks for cards that were waited for: %v", f.looks)
	}
	if f.early != 0 {
		t.Errorf("the daemon did not wait for its data volume: %d files", f.early)
	}
	for _, want := range []string{"POST /ready", "POST /console", "POST /reboot", "POST /poweroff"} {
		found := false
		for _, c := range f.calls {
			found = found || c == want
		}
		if !found {
			t.Errorf("%s was not called: %v", want, f.calls)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"extra"}, {"--vsock-port", "x"}} {
		if _, err := parse(args, io.Discard); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%v: %v", args, err)
		}
	}
	if status := Main([]string{"--data-dir", "/proc/no", "--run-dir", "/proc/no", "--no-init", "--no-network"}); status == 0 {
		t.Error("a daemon without a data directory ended well")
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	o, err := parse([]string{"--data-dir", n.dir, "--run-dir", n.run, "--no-init", "--no-network", "--listen", ""}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(o, io.Discard, make(chan os.Signal)); qverr.CodeOf(err) != qverr.Busy {
		t.Errorf("got %v, want QV_ERR_BUSY", err)
	}
	n.want(200, n.call("GET", "/healthz", ""), nil)
}
