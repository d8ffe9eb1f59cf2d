package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func reader(s string) *bufio.Reader { return bufio.NewReaderSize(strings.NewReader(s), 16) }

func TestReadRequest(t *testing.T) {
	r := reader("GET /wait?since=running HTTP/1.1\r\nHost: vm\r\nX-A:  b \r\n\r\n" +
		"POST /quit HTTP/1.1\nContent-Length: 4\n\nbody" +
		"GET /console/serial HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: Quantavirt-Console\r\n\r\nrest")
	req, err := ReadRequest(r)
	if err != nil || req.Method != "GET" || req.Path != "/wait" || req.Query.Get("since") != "running" || req.Header["x-a"] != "b" || req.Upgrade() != "" {
		t.Fatalf("%+v, %v", req, err)
	}
	req, err = ReadRequest(r)
	if err != nil || req.Method != "POST" || string(req.Body) != "body" {
		t.Fatalf("%+v, %v", req, err)
	}
	req, err = ReadRequest(r)
	if err != nil || req.Upgrade() != "quantavirt-console" {
		t.Fatalf("%+v, %v", req, err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "rest" {
		t.Fatalf("%q, %v", rest, err)
	}
	if _, err := ReadRequest(r); !errors.Is(err, io.EOF) {
		t.Fatalf("%v", err)
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range []string{
		"GET\r\n\r\n",
		"GET / HTTP/2.0\r\n\r\n",
		"GET / HTTP/1.1 x\r\n\r\n",
		" / HTTP/1.1\r\n\r\n",
		"GET nowhere HTTP/1.1\r\n\r\n",
		"GET /%zz HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nno colon\r\n\r\n",
		"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
		"GET / HTTP/1.1\r\n: x\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET /" + strings.Repeat("x", MaxLine) + " HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", MaxHeaders+1) + "\r\n",
	} {
		if _, err := ReadRequest(reader(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	for _, in := range []string{"GET / HT", "GET / HTTP/1.1\r\nHost", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nbod", "GET / HTTP/1.1\r\n"} {
		if _, err := ReadRequest(reader(in)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"HTTP/1.1\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 7 OK\r\n\r\n"} {
		if _, err := ReadResponse(reader(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestAgainstNetHTTP: what we write, the standard library reads, and the other
// way round.
func TestAgainstNetHTTP(t *testing.T) {
	var buf bytes.Buffer
	ours := &Request{Method: "POST", Path: "/a b", Query: url.Values{"q": {"1 2"}}, Header: Header{"X-A": "b"}, Body: []byte("body")}
	if err := ours.Write(&buf); err != nil {
		t.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(&buf))
	if err != nil || req.URL.Path != "/a b" || req.URL.Query().Get("q") != "1 2" || req.Header.Get("X-A") != "b" || req.ContentLength != 4 {
		t.Fatalf("%+v, %v", req, err)
	}
	buf.Reset()
	theirs, err := http.NewRequest("GET", "http://vm/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Write(&buf); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRequest(bufio.NewReader(&buf)); err != nil || got.Path != "/info" {
		t.Fatalf("%+v, %v", got, err)
	}
	buf.Reset()
	if err := (&Response{Status: 409, Header: Header{"Content-Type": "x/y"}, Body: []byte("no")}).Write(&buf); err != nil {
		t.Fatal(err)
	}
	copied := buf.String()
	resp, err := http.ReadResponse(bufio.NewReader(&buf), nil)
	if err != nil || resp.StatusCode != 409 || resp.ContentLength != 2 || resp.Status != "409 Conflict" {
		t.Fatalf("%+v, %v", resp, err)
	}
	if got, err := ReadResponse(reader(copied)); err != nil || got.Status != 409 || string(got.Body) != "no" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("GET /info?x=y HTTP/1.1\r\nHost: vm\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("POST /quit HTTP/1.0\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		if len(req.Body) > len(in) || len(req.Header) > MaxHeaders || req.Method == "" {
			t.Fatalf("%+v", req)
		}
	})
}
