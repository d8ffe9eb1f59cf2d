package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"quantavirt/appliance/auth"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

// echo is a guest that repeats what is typed, after what its ring keeps.
func echo(ring string) io.ReadWriteCloser {
	ours, theirs := net.Pipe()
	go func() {
		_, _ = io.WriteString(theirs, ring)
		_, _ = io.Copy(theirs, theirs)
	}()
	return ours
}

func TestRawConsole(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ended <- overRaw(w, echo("boot\n"))
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// What is typed may come with the request, before the answer.
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: quantavirt-console\r\n\r\nearly\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != upgradeConsole {
		t.Fatalf("%v, %v", resp, err)
	}
	for _, want := range []string{"boot\n", "early\n", "late\n"} {
		if want == "late\n" {
			fmt.Fprint(conn, want)
		}
		if line, err := r.ReadString('\n'); err != nil || line != want {
			t.Fatalf("%q, %v; want %q", line, err, want)
		}
	}
	_ = conn.Close()
	<-ended
}

func TestWebSocketConsole(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ended <- overWebSocket(w, r, echo("boot\n"))
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "boot\n" {
		t.Fatalf("%q, %v", line, err)
	}
	fmt.Fprint(conn, "typed\n")
	if line, err := r.ReadString('\n'); err != nil || line != "typed\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_ = conn.Close()
	<-ended
}

func bare(t *testing.T) *Server {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tokens, err := auth.OpenTokens(db)
	if err != nil {
		t.Fatal(err)
	}
	return New(Deps{Log: slog.New(slog.DiscardHandler), Schema: LazySchema(), Tokens: tokens})
}

// A bug in a handler is an answer with a code, and the connection goes on.
func TestPanic(t *testing.T) {
	s := bare(t)
	srv := httptest.NewServer(s.http.Handler)
	defer srv.Close()
	for range 2 {
		resp, err := http.Get(srv.URL + "/readyz") // there is no system service to ask
		if err != nil {
			t.Fatal(err)
		}
		var b qverr.Body
		err = json.NewDecoder(resp.Body).Decode(&b)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 500 || b.Error.Code != qverr.Generic || !strings.Contains(b.Error.Detail, b.Error.RequestID) || strings.Contains(b.Error.Detail, "nil pointer") {
			t.Errorf("%d %+v, %v", resp.StatusCode, b.Error, err)
		}
	}
}

// Every operation of the description needs a token, but the two probes.
func TestEverythingNeedsAToken(t *testing.T) {
	s := bare(t)
	set, err := s.Schema()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, op := range set.Operations() {
		method, path, _ := strings.Cut(op, " ")
		if isProbe(path) {
			continue
		}
		n++
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, httptest.NewRequest(method, strings.NewReplacer("{name}", "x", "{id}", "x").Replace(path), nil))
		var b qverr.Body
		if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || w.Code != 401 || b.Error.Code != qverr.Auth {
			t.Errorf("%s: %d %s", op, w.Code, w.Body)
		}
	}
	if n < 30 {
		t.Errorf("only %d operations", n)
	}
}

func TestReply(t *testing.T) {
	w := httptest.NewRecorder()
	bare(t).fail(w, httptest.NewRequest("GET", "/x", nil), errors.New("odd"))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"QV_ERR_GENERIC"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// The page for people names every operation of the description.
func TestPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	set, err := bare(t).Schema()
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range set.Operations() {
		if !strings.Contains(string(page), "`"+op+"`") {
			t.Errorf("docs/api.md does not have %s", op)
		}
	}
}
