package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"quantavirt/internal/qverr"
)

func tempFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const diskJSON = `{"name":"root","format":"raw","size_bytes":3000000,"allocated_bytes":4096,"created_at":"2026-01-15T14:32:01Z"}`

func TestUpload(t *testing.T) {
	data := bytes.Repeat([]byte("quantavirt"), 300_000)
	var got string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %d %v %v %s", r.Method, r.URL, r.ContentLength, bytes.Equal(body, data), err, r.Header.Get("Expect"))
		answerJSON(w, 201, diskJSON)
	}))
	r := runIn(t, env, nil, "storage", "upload", "--name", "root", "--file", tempFile(t, data), "--size", "4g")
	if want := "POST /api/v1/disks?name=root&size=4G 3000000 true <nil> 100-continue"; r.exit != 0 || got != want {
		t.Errorf("%+v\n%s\nwant\n%s", r, got, want)
	}
	if !strings.Contains(r.err, "disk root [========================] 100%  2.9 MiB of 2.9 MiB") {
		t.Errorf("progress:\n%s", r.err)
	}
	if r := runIn(t, env, nil, "-q", "disk", "upload", "root", "--file", tempFile(t, data)); r.err != "" {
		t.Errorf("quiet: %q", r.err)
	}
}

// The node refuses before the first byte: nothing is sent, its error is shown.
func TestUploadRefused(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, qverr.New(qverr.NoSpc, "100 bytes free"))
	}))
	r := runIn(t, env, nil, "disk", "upload", "root", "--file", tempFile(t, make([]byte, 64<<20)))
	if r.exit != 7 || !strings.HasPrefix(r.err, "Error: QV_ERR_NOSPC (-14): 100 bytes free") {
		t.Errorf("%+v", r)
	}
}

func TestUploadCut(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 100_000)
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}))
	r := runIn(t, env, nil, "-q", "disk", "upload", "root", "--file", tempFile(t, make([]byte, 64<<20)))
	if r.exit != 12 || !strings.Contains(r.err, "QV_ERR_IO (-11)") {
		t.Errorf("%+v", r)
	}
}

func TestImageKinds(t *testing.T) {
	var query string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		_, _ = io.Copy(io.Discard, r.Body)
		answerJSON(w, 201, `{"id":"i","kind":"kernel","size_bytes":1,"allocated_bytes":1,"sha256":"","created_at":"2026-01-15T14:32:01Z"}`)
	}))
	at := func(pos int, magic string) []byte { return append(make([]byte, pos), magic...) }
	for _, c := range []struct {
		data []byte
		args []string
		want string
	}{
		{at(0x202, "HdrS"), nil, "id=i&kind=kernel"},
		{at(0, "\x7fELF"), nil, "id=i&kind=kernel"},
		{at(0, "070701"), nil, "id=i&kind=initrd"},
		{at(0, "\x28\xb5\x2f\xfd"), nil, "id=i&kind=initrd"},
		{at(510, "\x55\xaa"), nil, "id=i&kind=raw"},
		{at(1080, "\x53\xef"), nil, "id=i&kind=raw"},
		{at(0, "hello"), []string{"--kind", "kernel"}, "id=i&kind=kernel"},
		{nil, []string{"--kind", "raw"}, "id=i&kind=raw"},
	} {
		query = ""
		r := runIn(t, env, nil, append([]string{"-q", "image", "upload", "i", "--file", tempFile(t, c.data)}, c.args...)...)
		if r.exit != 0 || query != c.want {
			t.Errorf("%.8q: %+v, %s, want %s", c.data, r, query, c.want)
		}
	}
	if r := runIn(t, env, nil, "image", "upload", "i", "--file", tempFile(t, []byte("hello"))); r.exit != 2 || !strings.Contains(r.err, "--kind") {
		t.Errorf("%+v", r)
	}
	if r := runIn(t, env, nil, "image", "upload", "i", "--file", t.TempDir()); r.exit != 2 {
		t.Errorf("folder: %+v", r)
	}
}

func taskJSON(state string, done int, more string) string {
	return fmt.Sprintf(`{"id":"t1","kind":"vm.start","target":"vms/web","state":%q,"progress":{"done":%d,"total":10,"unit":"steps","phase":"boot"},"created_at":"2026-01-15T14:32:01Z"%s}`, state, done, more)
}

func TestTaskIsAwaited(t *testing.T) {
	var polls atomic.Int32
	end := "succeeded"
	more := ""
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			polls.Store(0)
			answerJSON(w, 202, taskJSON("pending", 0, ""))
			return
		}
		switch polls.Add(1) {
		case 1:
			answerJSON(w, 200, taskJSON("running", 5, ""))
		case 2: // the daemon restarts
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		case 3:
			fail(w, qverr.New(qverr.Again, "starting"))
		default:
			answerJSON(w, 200, taskJSON(end, 10, more))
		}
	}))
	r := runIn(t, env, nil, "vm", "start", "web")
	if r.exit != 0 || r.out != "start VM web: done\n" || !strings.Contains(r.err, "50%  5/10 steps") {
		t.Errorf("%+v", r)
	}
	end, more = "failed", `,"error":{"code":-2,"name":"QV_ERR_NOMEM","message":"m","detail":"VM web needs 4 GiB","subsystem":"hypervisor","transient":false}`
	r = runIn(t, env, nil, "-q", "vm", "start", "web")
	if r.exit != 7 || !strings.HasPrefix(r.err, "Error: QV_ERR_NOMEM (-2): VM web needs 4 GiB — ") || r.out != "" {
		t.Errorf("failed: %+v", r)
	}
	end, more = "cancelled", ""
	if r = runIn(t, env, nil, "-q", "vm", "stop", "web", "--force"); r.exit != 5 {
		t.Errorf("cancelled: %+v", r)
	}
	r = runIn(t, env, nil, "vm", "start", "web", "--no-wait")
	if r.exit != 0 || r.out != "start VM web: task t1 is pending\n" || polls.Load() != 0 {
		t.Errorf("--no-wait: %+v", r)
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			cancel()
			<-r.Context().Done()
			return
		}
		answerJSON(w, 202, taskJSON("running", 0, ""))
	}))
	var errOut bytes.Buffer
	exit := Run(ctx, []string{"-q", "vm", "start", "web"}, Env{In: strings.NewReader(""), Out: io.Discard, Err: &errOut, Getenv: func(k string) string { return env[k] }})
	if exit != 1 || !strings.Contains(errOut.String(), "task t1 goes on") || !strings.Contains(errOut.String(), "quantavirt task show t1") {
		t.Errorf("exit %d, %s", exit, &errOut)
	}
}

// consoleNode upgrades, replays, then echoes in capitals until it reads "bye".
func consoleNode(t *testing.T, state string) map[string]string {
	return node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/console") {
			answerJSON(w, 200, strings.Replace(vmJSON, "RUNNING", state, 1))
			return
		}
		if r.Header.Get("Upgrade") != "quantavirt-console" || r.Header.Get("Connection") != "Upgrade" {
			io.WriteString(w, "kept\n")
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: quantavirt-console\r\n\r\nreplay\n")
		echo(conn, rw.Reader)
	}))
}

func echo(conn net.Conn, r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "bye\n" {
			return
		}
		io.WriteString(conn, strings.ToUpper(line))
	}
}

func TestConsole(t *testing.T) {
	env := consoleNode(t, "STOPPED")
	r := runIn(t, env, strings.NewReader("hello\nbye\n"), "vm", "console", "web")
	if r.exit != 0 || r.out != "replay\nHELLO\n" || !strings.Contains(r.err, "[VM web is STOPPED]") {
		t.Errorf("%+v", r)
	}
	if r := runIn(t, env, nil, "vm", "console", "web", "--log"); r.exit != 0 || r.out != "kept\n" {
		t.Errorf("--log: %+v", r)
	}
	// The connection breaks, the VM does not.
	env = consoleNode(t, "RUNNING")
	r = runIn(t, env, strings.NewReader("bye\n"), "vm", "console", "web")
	if r.exit != 12 || !strings.Contains(r.err, "attaches again") {
		t.Errorf("lost: %+v", r)
	}
	refused := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, qverr.New(qverr.State, "VM web is not running"))
	}))
	if r := runIn(t, refused, nil, "vm", "console", "web"); r.exit != 5 {
		t.Errorf("refused: %+v", r)
	}
}

func TestConsoleLeaveKey(t *testing.T) {
	ours, guest := net.Pipe()
	got := make(chan string, 1)
	go func() {
		data, _ := io.ReadAll(guest)
		got <- string(data)
	}()
	var out bytes.Buffer
	left, err := relay(t.Context(), ours, strings.NewReader("ls\x1dnever"), &out, true, false)
	if !left || err != nil || <-got != "ls" {
		t.Errorf("left %v, %v", left, err)
	}
	// Without a terminal the key is a byte like any other.
	ours, guest = net.Pipe()
	go func() {
		buf := make([]byte, 8)
		n, _ := io.ReadFull(guest, buf)
		guest.Write(buf[:n])
		guest.Close()
	}()
	left, err = relay(t.Context(), ours, strings.NewReader("ls\x1dnever"), &out, false, false)
	if left || err != nil || out.String() != "ls\x1dnever" {
		t.Errorf("left %v, %v, %q", left, err, out.String())
	}
	// A cancelled context ends it.
	ours, guest = net.Pipe()
	defer guest.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left, err := relay(ctx, ours, strings.NewReader(""), io.Discard, true, false); left || err != nil {
		t.Errorf("cancelled: %v, %v", left, err)
	}
}
