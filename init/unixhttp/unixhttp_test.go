package unixhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"quantavirt/internal/qvlog"
)

func TestReadRequest(t *testing.T) {
	for _, c := range []struct {
		in     string
		want   Request
		status int
	}{
		{"GET /boot?wait=1&step=a HTTP/1.1\r\nHost: init\r\n\r\n", Request{Method: "GET", Path: "/boot", Query: map[string]string{"wait": "1", "step": "a"}}, 0},
		{"POST /x HTTP/1.0\nContent-Length: 3\n\nabcdef", Request{Method: "POST", Path: "/x", Query: map[string]string{}, Body: []byte("abc")}, 0},
		{"GET /\r\n\r\n", Request{}, 400},
		{"GET boot HTTP/1.1\r\n\r\n", Request{}, 400},
		{"PRI * HTTP/2.0\r\n\r\n", Request{}, 400},
		{"GET / HTTP/1.1\r\nnonsense\r\n\r\n", Request{}, 400},
		{"GET / HTTP/1.1\r\nHost: x", Request{}, 431},
		{"GET / HTTP/1.1\r\n", Request{}, 400},
		{"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Request{}, 400},
		{"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", Request{}, 400},
		{"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", Request{}, 413},
		{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Request{}, 411},
		{"GET /" + strings.Repeat("x", maxHead+MaxBody) + " HTTP/1.1\r\n\r\n", Request{}, 431},
		{"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxHead) + "\r\n", Request{}, 431},
	} {
		name := c.in[:min(len(c.in), 40)]
		got, err := readRequest(strings.NewReader(c.in))
		var no *refusal
		if errors.As(err, &no) != (c.status != 0) || no != nil && no.status != c.status {
			t.Errorf("%q: %v, want status %d", name, err, c.status)
		}
		if c.status == 0 && (!bytes.Equal(got.Body, c.want.Body) || got.Method != c.want.Method || got.Path != c.want.Path || !reflect.DeepEqual(got.Query, c.want.Query)) {
			t.Errorf("%q: %+v", name, got)
		}
	}
	if _, err := readRequest(strings.NewReader("")); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("POST /a?b=c HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readRequest(bytes.NewReader(data))
		if err == nil && (len(r.Body) > MaxBody || !strings.HasPrefix(r.Path, "/")) {
			t.Errorf("%+v", r)
		}
	})
}

func serve(t *testing.T, h Handler) (*http.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, h, func(status int, text string) Response { return Response{Status: status, Body: []byte(text)} }, qvlog.New(io.Discard, qvlog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}, path
}

// Go's client, many at the same time.
func TestServe(t *testing.T) {
	client, path := serve(t, func(_ context.Context, r Request) Response {
		if r.Path == "/panic" {
			panic("ouch")
		}
		if r.UID != uint32(os.Geteuid()) {
			return Response{Status: 403}
		}
		return Response{Status: 202, Type: "text/plain", Body: append([]byte(r.Method+" "+r.Path+" "), r.Body...)}
	})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			body := strings.Repeat("x", i*200)
			resp, err := client.Post(fmt.Sprintf("http://x/p%d", i), "text/plain", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("POST /p%d %s", i, body); err != nil || resp.StatusCode != 202 || string(data) != want {
				t.Errorf("%d %v: %d bytes, want %d", resp.StatusCode, err, len(data), len(want))
			}
		})
	}
	wg.Wait()
	for _, c := range []struct {
		path, body string
		status     int
	}{{"/panic", "", 500}, {"/", strings.Repeat("x", MaxBody+1), 413}} {
		resp, err := client.Post("http://x"+c.path, "", strings.NewReader(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.path, resp.StatusCode, c.status)
		}
		_ = resp.Body.Close()
	}
}

// A handler that waits learns that its client has gone.
func TestClientGoes(t *testing.T) {
	waiting, ended := make(chan struct{}), make(chan struct{})
	client, _ := serve(t, func(ctx context.Context, _ Request) Response {
		close(waiting)
		<-ctx.Done()
		close(ended)
		return Response{Status: 503}
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-waiting
		cancel()
	}()
	if _, err := client.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
}
