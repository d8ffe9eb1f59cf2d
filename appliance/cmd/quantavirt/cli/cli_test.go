package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

type result struct {
	exit     int
	out, err string
}

// runIn runs one command with an environment of its own.
func runIn(t *testing.T, env map[string]string, in io.Reader, args ...string) result {
	t.Helper()
	if in == nil {
		in = strings.NewReader("")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	exit := Run(ctx, args, Env{In: in, Out: &out, Err: &errOut, Getenv: func(k string) string { return env[k] }})
	return result{exit, out.String(), errOut.String()}
}

// node serves h on a UNIX socket and returns the environment that names it.
func node(t *testing.T, h http.Handler) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qv") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return map[string]string{"QUANTAVIRT_HOST": "unix://" + path}
}

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func fail(w http.ResponseWriter, err error) {
	body, _ := json.Marshal(qverr.NewBody(err, "req-00000001"))
	answerJSON(w, qverr.HTTPStatus(err), string(body))
}

// Every code that a node can answer becomes its line and its exit code.
func TestEveryCodeReachesTheUser(t *testing.T) {
	var code qverr.Code
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, qverr.New(code, "what happened").WithHint("what to do"))
	}))
	for _, e := range qverr.All()[1:] {
		code = e.Code
		got := runIn(t, env, nil, "vm", "show", "web")
		if want := "Error: " + e.String() + ": what happened — what to do\n"; got.err != want || got.out != "" || got.exit != e.ExitCode {
			t.Errorf("%s: exit %d, want %d; %q, want %q", e.Name, got.exit, e.ExitCode, got.err, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"vm", "start"}, {"vm", "start", "a", "b"}, {"vm", "strat", "a"}, {"nonsense"}, {"--nonsense"}, {"vm", "list", "--nonsense"},
		{"vm", "list", "-o", "xml"}, {"vm", "create"}, {"vm", "create", "--config", "a", "--interactive"}, {"vm", "set", "web"},
		{"vm", "set", "web", "novalue"}, {"vm", "set", "web", "a=1", "a.b=2"}, {"disk", "create"}, {"disk", "create", "a", "--size", "1X"},
		{"disk", "upload", "a"}, {"image", "upload", "a"}, {"vm", "stop", "a", "--timeout", "x"}, {"api", "GET"}, {"vm", "validate"},
		{"vm", "list", "--host", "http://x"}, {"vm", "list", "--host", "ftp://x"}, {"vm", "list", "--host", "vsock://x"},
		{"vm", "list", "--host", "https://h/path"}, {"vm", "list", "--ca-pin", "sha256:12"}, {"system", "error-lookup", "0xzz"},
	} {
		got := runIn(t, map[string]string{"QUANTAVIRT_HOST": "unix:///nonexistent"}, nil, args...)
		if got.exit != 2 || !strings.HasPrefix(got.err, "Error: QV_ERR_INVAL (-5): ") || !strings.Contains(got.err, " — ") || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%v: exit %d, %q", args, got.exit, got.err)
		}
	}
	got := runIn(t, nil, nil, "vm", "strt")
	if !strings.Contains(got.err, "did you mean set or start") {
		t.Errorf("no suggestion: %q", got.err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	silent := node(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}))
	for _, host := range []string{"unix:///nonexistent/api.sock", "https://" + closed, silent["QUANTAVIRT_HOST"]} {
		got := runIn(t, nil, nil, "--host", host, "vm", "list")
		if got.exit != 12 || !strings.HasPrefix(got.err, "Error: QV_ERR_IO (-11): no answer from ") {
			t.Errorf("%s: exit %d, %q", host, got.exit, got.err)
		}
	}
	// What answers but is no node is reached.
	other := node(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	if got := runIn(t, other, nil, "vm", "list"); got.exit != 1 || !strings.Contains(got.err, "QV_ERR_GENERIC") {
		t.Errorf("no node: exit %d, %q", got.exit, got.err)
	}
}

func TestErrorLookup(t *testing.T) {
	for _, args := range [][]string{{"-3"}, {"-o", "table", "-3"}, {"-3", "-q"}, {"QV_ERR_NOVMX"}, {"qv_err_novmx"}, {"--", "-3"}} {
		got := runIn(t, nil, nil, append([]string{"system", "error-lookup"}, args...)...)
		e, _ := qverr.Lookup(qverr.NoVMX)
		if got.exit != 0 || got.out != qverr.FormatLookup(e) {
			t.Errorf("%v: exit %d\n%s%s", args, got.exit, got.out, got.err)
		}
	}
	got := runIn(t, nil, nil, "system", "error-lookup", "-402", "-o", "json")
	var e qverr.Entry
	if err := json.Unmarshal([]byte(got.out), &e); err != nil || e.Code != qverr.StrLock {
		t.Errorf("json: %s%s", got.out, got.err)
	}
	if got := runIn(t, nil, nil, "system", "error-lookup", "-9999"); got.exit != 3 {
		t.Errorf("unknown code: exit %d, %s", got.exit, got.err)
	}
	if got := runIn(t, nil, nil, "system", "error-lookup", "exit", "12"); got.exit != 0 || !strings.HasPrefix(got.out, "Exit code 12\n") {
		t.Errorf("exit code: %s%s", got.out, got.err)
	}
}

func TestNegativeNumbers(t *testing.T) {
	got := negativeNumbers([]string{"system", "error-lookup", "-3", "-o", "json"})
	if want := []string{"system", "error-lookup", "-o", "json", "--", "-3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	same := []string{"vm", "list", "-3"}
	if got := negativeNumbers(same); !slices.Equal(got, same) {
		t.Errorf("%q", got)
	}
}

const vmJSON = `{"name":"web","uuid":"5d1c3ac4-0f3b-4cf5-8a5e-000000000001","state":"RUNNING","state_since":"2026-01-15T14:32:01Z",` +
	`"config":{"name":"web","memory":{"size":"512M"},"cpu":{"count":2},"later":"field"},"created_at":"2026-01-15T14:32:01Z",` +
	`"updated_at":"2026-01-15T14:32:01Z","restarts":0,"nics":[{"network":"default","mac":"52:54:00:00:00:01","addresses":["192.168.200.10"]}]}`

func TestOutputForms(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, 200, `{"items":[`+vmJSON+`]}`)
	}))
	table := runIn(t, env, nil, "vm", "list")
	if want := "NAME  STATE    VCPUS  MEMORY  ADDRESSES       SINCE\nweb   RUNNING  2      512M    192.168.200.10  2026-01-15 14:32:01\n"; table.out != want {
		t.Errorf("table:\n%s%s", table.out, table.err)
	}
	// Fields that this version does not know are shown all the same.
	if got := runIn(t, env, nil, "vm", "list", "-o", "json"); !strings.Contains(got.out, `"later": "field"`) {
		t.Errorf("json:\n%s%s", got.out, got.err)
	}
	if got := runIn(t, env, nil, "vm", "list", "-o", "yaml"); !strings.HasPrefix(got.out, "items:\n  - name: web\n    uuid: ") {
		t.Errorf("yaml:\n%s%s", got.out, got.err)
	}
}

func TestExport(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answerJSON(w, 200, vmJSON) }))
	const want = "{\n  \"name\": \"web\",\n  \"memory\": {\n    \"size\": \"512M\"\n  },\n  \"cpu\": {\n    \"count\": 2\n  },\n  \"later\": \"field\"\n}\n"
	if got := runIn(t, env, nil, "vm", "export", "web"); got.out != want {
		t.Errorf("%q %q", got.out, got.err)
	}
	file := filepath.Join(t.TempDir(), "web.json")
	if got := runIn(t, env, nil, "vm", "export", "web", "--output", file); got.exit != 0 {
		t.Fatal(got.err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != want {
		t.Errorf("%q %v", data, err)
	}
	if got := runIn(t, env, nil, "vm", "export", "web", "--output", "/nonexistent/web.json"); got.exit != 3 {
		t.Errorf("exit %d, %s", got.exit, got.err)
	}
}

func TestTableIsNoTerminalProgram(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, 200, `{"items":[{"mac":"52:54:00:00:00:01","address":"10.0.0.2","hostname":"\u001b[2J\nx","expires_at":"2026-01-15T14:32:01Z"}]}`)
	}))
	got := runIn(t, env, nil, "network", "leases", "default")
	if strings.Contains(got.out, "\x1b") || strings.Count(got.out, "\n") != 2 {
		t.Errorf("%q", got.out)
	}
}

func TestCreateForms(t *testing.T) {
	var got []byte
	var query string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		query = r.URL.RawQuery
		answerJSON(w, 201, vmJSON)
	}))
	const config = `{"name": "web", "x": 1}` + "\n"
	file := filepath.Join(t.TempDir(), "web.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"vm", "create", "--config", file}, {"vm", "create", "--config", "-"}} {
		if r := runIn(t, env, strings.NewReader(config), args...); r.exit != 0 || string(got) != config || r.out != "VM web: RUNNING\n" {
			t.Errorf("%v: %+v, node got %q", args, r, got)
		}
	}
	if r := runIn(t, env, nil, "vm", "validate", "--config", file); r.exit != 0 || query != "dry_run=true" || r.out != "valid: VM web\n" {
		t.Errorf("validate: %+v, query %q", r, query)
	}
	answers := "web\n2\n\nvmlinuz\n\n\nroot\n\n\n"
	if r := runIn(t, env, strings.NewReader(answers), "vm", "create", "--interactive"); r.exit != 0 {
		t.Errorf("interactive: %+v", r)
	}
	const want = `{"boot":{"cmdline":"console=hvc0","firmware":"direct","kernel":"vmlinuz"},"cpu":{"count":2},"memory":{"size":"512M"},` +
		`"name":"web","network":[{"network":"default"}],"storage":[{"disk":"root"}]}`
	if string(got) != want {
		t.Errorf("interactive made\n%s\nwant\n%s", got, want)
	}
	if r := runIn(t, env, strings.NewReader("web\n\n\n\nroot\n\n\n"), "vm", "create", "--interactive"); r.exit != 0 {
		t.Errorf("interactive without a kernel: %+v", r)
	}
	if want := `{"cpu":{"count":1},"memory":{"size":"512M"},"name":"web","network":[{"network":"default"}],"storage":[{"disk":"root"}]}`; string(got) != want {
		t.Errorf("interactive without a kernel made\n%s\nwant\n%s", got, want)
	}
	if r := runIn(t, env, strings.NewReader("web\n"), "vm", "create", "--interactive"); r.exit != 2 {
		t.Errorf("answers end: %+v", r)
	}
	if r := runIn(t, env, nil, "vm", "create", "--config", "/nonexistent"); r.exit != 3 {
		t.Errorf("no file: %+v", r)
	}
}

func TestSet(t *testing.T) {
	var got string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + string(body)
		answerJSON(w, 200, vmJSON)
	}))
	r := runIn(t, env, nil, "vm", "set", "web", "cpu.count=4", "memory.size=2G", "description=a b", "uuid=12345678901234567890", "boot.initrd=null", `storage=[{"disk":"a"}]`, "cpu.limit=0.5")
	const want = `PATCH {"boot":{"initrd":null},"cpu":{"count":4,"limit":0.5},"description":"a b","memory":{"size":"2G"},"storage":[{"disk":"a"}],"uuid":12345678901234567890}`
	if r.exit != 0 || got != want {
		t.Errorf("%+v\n%s\nwant\n%s", r, got, want)
	}
	r = runIn(t, env, strings.NewReader(`{"restart": "always"}`), "vm", "update", "web", "--patch", "-")
	if r.exit != 0 || got != `PATCH {"restart":"always"}` {
		t.Errorf("%+v %s", r, got)
	}
	if r := runIn(t, env, strings.NewReader(`{"restart"`), "vm", "update", "web", "--patch", "-"); r.exit != 2 {
		t.Errorf("malformed patch: %+v", r)
	}
}

func TestRawCalls(t *testing.T) {
	var got string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %s %q", r.Method, r.URL, r.Header.Get("Content-Type"), body)
		if r.URL.Path == "/api/v1/vms/x" {
			fail(w, qverr.New(qverr.NoEnt, "no VM x"))
			return
		}
		io.WriteString(w, "{}")
	}))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"GET", "/vms"}, `GET /api/v1/vms  ""`},
		{[]string{"get", "vms?a=b"}, `GET /api/v1/vms?a=b  ""`},
		{[]string{"GET", "/healthz"}, `GET /healthz  ""`},
		{[]string{"POST", "/api/v1/vms", "--data", "{1"}, `POST /api/v1/vms application/json "{1"`},
		{[]string{"POST", "/vms", "-d", "@-"}, `POST /api/v1/vms application/json "stdin"`},
	} {
		r := runIn(t, env, strings.NewReader("stdin"), append([]string{"api"}, c.args...)...)
		if r.exit != 0 || r.out != "{}" || got != c.want {
			t.Errorf("%v: %+v, node got %s", c.args, r, got)
		}
	}
	r := runIn(t, env, nil, "api", "DELETE", "/vms/x")
	if r.exit != 3 || !strings.HasPrefix(r.out, `{"error":{"code":-6`) || !strings.HasPrefix(r.err, "Error: QV_ERR_NOENT (-6): no VM x") {
		t.Errorf("%+v", r)
	}
}

func TestSettings(t *testing.T) {
	var auth string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		answerJSON(w, 200, `{"items":[]}`)
	}))
	host := env["QUANTAVIRT_HOST"]
	path := filepath.Join(t.TempDir(), "config.json")
	text := fmt.Sprintf(`{"host": %q, "hosts": {%q: {"token": "from-file"}}}`, host, host)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"file", map[string]string{"QUANTAVIRT_CONFIG": path}, nil, "Bearer from-file"},
		{"environment", map[string]string{"QUANTAVIRT_CONFIG": path, "QUANTAVIRT_TOKEN": "from-env"}, nil, "Bearer from-env"},
		{"flag", map[string]string{"QUANTAVIRT_CONFIG": path, "QUANTAVIRT_TOKEN": "from-env"}, []string{"--token", "from-flag"}, "Bearer from-flag"},
		{"none", env, nil, ""},
	} {
		if r := runIn(t, c.env, nil, append([]string{"vm", "list"}, c.args...)...); r.exit != 0 || auth != c.want || r.err != "" {
			t.Errorf("%s: %+v, node got %q", c.name, r, auth)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := runIn(t, map[string]string{"QUANTAVIRT_CONFIG": path}, nil, "vm", "list"); r.exit != 0 || !strings.Contains(r.err, "others can read it") {
		t.Errorf("world-readable token: %+v", r)
	}
	if err := os.WriteFile(path, []byte(`{"hosst": ""}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := runIn(t, map[string]string{"QUANTAVIRT_CONFIG": path}, nil, "vm", "list"); r.exit != 2 || !strings.Contains(r.err, "QV_ERR_CONFIG") {
		t.Errorf("unknown key: %+v", r)
	}
	if r := runIn(t, map[string]string{"QUANTAVIRT_CONFIG": "/nonexistent"}, nil, "vm", "list"); r.exit != 3 {
		t.Errorf("named file missing: %+v", r)
	}
}

// A closed standard output is an error of the command, not a panic.
func TestOutputFails(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answerJSON(w, 200, vmJSON) }))
	var errOut bytes.Buffer
	exit := Run(t.Context(), []string{"vm", "show", "web"}, Env{In: strings.NewReader(""), Out: brokenWriter{}, Err: &errOut, Getenv: func(k string) string { return env[k] }})
	if exit != 8 {
		t.Errorf("exit %d, %s", exit, &errOut)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := runIn(t, nil, nil, "completion", shell); r.exit != 0 || !strings.Contains(r.out, "quantavirt") {
			t.Errorf("%s: %d %s", shell, r.exit, r.err)
		}
	}
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answerJSON(w, 200, `{"items":[`+vmJSON+`]}`) }))
	if r := runIn(t, env, nil, "__complete", "vm", "start", ""); !strings.HasPrefix(r.out, "web\n") {
		t.Errorf("names: %+v", r)
	}
	if r := runIn(t, env, nil, "__complete", "vm", "st"); !strings.Contains(r.out, "start") {
		t.Errorf("verbs: %+v", r)
	}
}

func TestLogTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.log")
	ring, err := qvlog.OpenRing(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	log := qvlog.New(nil, qvlog.Options{Ring: ring})
	log.Info("up", "subsystem", "api")
	log.Error("start", "subsystem", "vm", "err", qverr.New(qverr.StrLock, "disk\tlocked"))
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "api: up\nvm: QV_STR_ERR_LOCK (-402): start: disk\\tlocked\n"},
		{[]string{"--level", "error"}, "vm: QV_STR_ERR_LOCK (-402): start: disk\\tlocked\n"},
		{[]string{"--grep", "QV_STR", "--last", "1h"}, "vm: QV_STR_ERR_LOCK (-402): start: disk\\tlocked\n"},
		{[]string{"--subsystem", "api", "-n", "5"}, "api: up\n"},
	} {
		r := runIn(t, nil, nil, append([]string{"log", "tail", "--file", path}, c.args...)...)
		got := regexp.MustCompile(`(?m)^\[.*?\] \[[A-Z]+\] `).ReplaceAllString(r.out, "")
		if r.exit != 0 || got != c.want {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	for _, args := range [][]string{{"--level", "loud"}, {"--grep", "("}} {
		if r := runIn(t, nil, nil, append([]string{"log", "tail", "--file", path}, args...)...); r.exit != 2 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	var query string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Path + "?" + r.URL.RawQuery
		answerJSON(w, 200, `{"items":[{"time":"2026-01-15T14:32:01Z","level":"WARN","subsystem":"init","message":"hello"}]}`)
	}))
	r := runIn(t, env, nil, "log", "tail", "--level", "warn", "--source", "boot", "-n", "5")
	if r.out != "[2026-01-15 14:32:01 UTC] [WARN] init: hello\n" || query != "/api/v1/logs?level=warn&limit=5&source=boot" {
		t.Errorf("%+v of %s", r, query)
	}
}
