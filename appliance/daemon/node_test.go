package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

// node is a real daemon in this process, on directories of its own.
type node struct {
	t       *testing.T
	dir     string
	run     string
	url     string
	ca      string // pin of the authority
	token   string
	client  *http.Client
	signals chan os.Signal
	ended   chan error
}

// lines hands the banner over line by line.
type lines struct{ c chan string }

func (l lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l.c <- strings.TrimSuffix(line, "\n")
	}
	return len(p), nil
}

// newNode starts a daemon on an ordinary host: no PID 1, no network of ours.
func newNode(t *testing.T, args ...string) *node {
	t.Helper()
	// Socket paths are short: 108 bytes at most.
	run, err := os.MkdirTemp("", "qv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	n := &node{t: t, dir: t.TempDir(), run: run}
	n.start(args...)
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start(args ...string) {
	n.t.Helper()
	args = append([]string{"--data-dir", n.dir, "--run-dir", n.run, "--listen", "127.0.0.1:0", "--vsock-port", "0", "--no-init", "--no-network",
		"--log-level", "debug"}, args...)
	o, err := parse(args, io.Discard)
	if err != nil {
		n.t.Fatal(err)
	}
	out := lines{make(chan string, 64)}
	o.out = out
	n.signals, n.ended = make(chan os.Signal, 1), make(chan error, 1)
	go func() { n.ended <- Run(o, io.Discard, n.signals) }()
	timeout := time.After(30 * time.Second)
	for n.url = ""; n.url == ""; {
		select {
		case line := <-out.c:
			n.banner(line)
		case err := <-n.ended:
			n.t.Fatalf("the daemon ended: %v", err)
		case <-timeout:
			n.t.Fatal("the daemon is not ready")
		}
	}
	n.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: n.tls(), ExpectContinueTimeout: 10 * time.Second}}
}

func (n *node) banner(line string) {
	if token, ok := strings.CutPrefix(line, "quantavirt: token "); ok {
		n.token = token
	}
	if rest, ok := strings.CutPrefix(line, "quantavirt: ready "); ok {
		for word := range strings.FieldsSeq(rest) {
			if v, ok := strings.CutPrefix(word, "url="); ok {
				n.url = v
			}
			if v, ok := strings.CutPrefix(word, "ca="); ok {
				n.ca = v
			}
		}
	}
}

// tls trusts the pinned authority, as the command line does.
func (n *node) tls() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the pin decides, below
		VerifyConnection: func(cs tls.ConnectionState) error {
			ca := cs.PeerCertificates[len(cs.PeerCertificates)-1]
			sum := sha256.Sum256(ca.Raw)
			if "sha256:"+hex.EncodeToString(sum[:]) != n.ca {
				return errors.New("another authority")
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1"})
			return err
		},
	}
}

// stop ends the daemon as PID 1 does for a restart.
func (n *node) stop() {
	n.t.Helper()
	if n.ended == nil {
		return
	}
	n.client.CloseIdleConnections()
	n.signals <- syscall.SIGHUP
	select {
	case err := <-n.ended:
		if err != nil {
			n.t.Errorf("the daemon ended: %v", err)
		}
	case <-time.After(30 * time.Second):
		n.t.Error("the daemon does not end")
	}
	n.ended = nil
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) err(t *testing.T) qverr.Payload {
	t.Helper()
	var b qverr.Body
	if err := json.Unmarshal(a.body, &b); err != nil || b.Error.Name == "" {
		t.Fatalf("status %d, no error body: %.300s", a.status, a.body)
	}
	return b.Error
}

func (n *node) do(req *http.Request) answer {
	n.t.Helper()
	resp, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func (n *node) request(method, path string, body io.Reader) *http.Request {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, body)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.token)
	return req
}

// call sends a JSON document, "" for none.
func (n *node) call(method, path, doc string) answer {
	n.t.Helper()
	var body io.Reader
	if doc != "" {
		body = strings.NewReader(doc)
	}
	return n.do(n.request(method, path, body))
}

func (n *node) want(status int, a answer, into any) {
	n.t.Helper()
	if a.status != status {
		n.t.Fatalf("status %d, want %d: %.500s", a.status, status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			n.t.Fatalf("%v: %.300s", err, a.body)
		}
	}
}

func (n *node) upload(path string, data []byte) answer {
	n.t.Helper()
	req := n.request("POST", path, bytes.NewReader(data))
	req.Header.Set("Content-Type", "application/octet-stream")
	return n.do(req)
}

// bzImage is as much of a kernel as can be told without running it.
func bzImage() []byte {
	const payload = 64 << 10
	k := make([]byte, 1024+payload)
	le := binary.LittleEndian
	k[0x1f1] = 1
	le.PutUint32(k[0x1f4:], payload/16)
	le.PutUint16(k[0x1fe:], 0xaa55)
	copy(k[0x202:], "HdrS")
	le.PutUint16(k[0x206:], 0x020f)
	k[0x211] = 1
	le.PutUint16(k[0x236:], 1)
	le.PutUint64(k[0x258:], 0x1000000)
	le.PutUint32(k[0x260:], 4*payload)
	return k
}

const good = `{"name":"web","memory":{"size":"64M"},"boot":{"firmware":"direct","kernel":"k"}}`

// ready has a kernel k and a VM web.
func (n *node) ready() {
	n.t.Helper()
	n.want(201, n.upload("/api/v1/images?id=k&kind=kernel", bzImage()), nil)
	n.want(201, n.call("POST", "/api/v1/vms", good), nil)
}

// inventory is what the node holds, in the API and on the disk.
func (n *node) inventory() string {
	n.t.Helper()
	var b strings.Builder
	for _, kind := range []string{"vms", "images", "disks", "tokens", "tasks"} {
		a := n.call("GET", "/api/v1/"+kind, "")
		var list struct {
			Items []map[string]any `json:"items"`
		}
		n.want(200, a, &list)
		for _, item := range list.Items {
			b.WriteString(kind + " ")
			for _, key := range []string{"name", "id", "state"} {
				if v, ok := item[key].(string); ok {
					b.WriteString(v + " ")
				}
			}
			b.WriteString("\n")
		}
	}
	for _, sub := range []string{"images", "disks", "configs", "keystore"} {
		entries, _ := os.ReadDir(filepath.Join(n.dir, sub))
		for _, e := range entries {
			b.WriteString(sub + "/" + e.Name() + "\n")
		}
	}
	return b.String()
}

// logged waits for a line of the log that has all the words.
func (n *node) logged(words ...string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		data, _ := os.ReadFile(filepath.Join(n.dir, "logs", "quantavirt.log"))
		for line := range strings.Lines(string(data)) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("no line of the log has %q", words)
		}
	}
}

// dial opens a TLS connection for a client with manners of its own.
func (n *node) dial() net.Conn {
	n.t.Helper()
	conn, err := (&tls.Dialer{Config: n.tls()}).DialContext(n.t.Context(), "tcp", strings.TrimPrefix(n.url, "https://"))
	if err != nil {
		n.t.Fatal(err)
	}
	return conn
}
