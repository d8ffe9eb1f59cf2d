package cli

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/vsock"

	"quantavirt/internal/qverr"
)

const (
	defaultSocket = "/var/run/quantavirt/api.sock"
	defaultPort   = "9400"
	dialTimeout   = 10 * time.Second
	// continueTimeout is how long an upload waits for the node's word that it
	// has the room.
	continueTimeout = 30 * time.Second
)

// target is a node and the way to it.
type target struct {
	name  string // as users write it
	base  string // URL for requests
	dial  func(ctx context.Context) (net.Conn, error)
	tls   bool
	trust trust
	token string
}

// parseTarget reads https://HOST[:PORT], vsock://CID[:PORT], unix://PATH or
// HOST[:PORT]; "" is the node itself.
func parseTarget(s string) (target, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "https", s
		if s == "" {
			scheme, rest = "unix", defaultSocket
		}
	}
	switch scheme {
	case "unix":
		return unixTarget(rest), nil
	case "vsock":
		return vsockTarget(rest)
	case "https":
		return networkTarget(s, rest)
	case "http":
		return target{}, qverr.New(qverr.Inval, "host %q: nodes do not speak plain HTTP on the network", s).WithHint("use https://")
	}
	return target{}, qverr.New(qverr.Inval, "host %q is none of https://HOST[:PORT], vsock://CID[:PORT], unix://PATH", s)
}

func unixTarget(path string) target {
	return target{name: "unix://" + path, base: "http://quantavirt", dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

func vsockTarget(rest string) (target, error) {
	cidText, portText, ok := strings.Cut(rest, ":")
	if !ok {
		portText = defaultPort
	}
	cid, err := strconv.ParseUint(cidText, 10, 32)
	port, err2 := strconv.ParseUint(portText, 10, 32)
	if err != nil || err2 != nil {
		return target{}, qverr.New(qverr.Inval, "vsock://%s is not vsock://CID[:PORT]", rest).WithHint("a guest's host is vsock://2")
	}
	return target{name: "vsock://" + rest, base: "http://quantavirt", dial: func(ctx context.Context) (net.Conn, error) {
		return dialVsock(ctx, uint32(cid), uint32(port))
	}}, nil
}

// dialVsock gives the blocking Dial a context.
func dialVsock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := vsock.Dial(cid, port, nil)
		if err != nil {
			done <- result{nil, err} // not a nil *vsock.Conn in a net.Conn
			return
		}
		done <- result{conn, nil}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func networkTarget(name, rest string) (target, error) {
	u, err := url.Parse("https://" + rest)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return target{}, qverr.New(qverr.Inval, "host %q is not https://HOST[:PORT]", name)
	}
	addr := net.JoinHostPort(u.Hostname(), first(u.Port(), defaultPort))
	return target{name: "https://" + addr, base: "https://" + addr, tls: true, dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}, nil
}

// transport speaks HTTP/1.1 to the target: console connections are upgraded.
func (t target) transport() *http.Transport {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return t.dial(ctx)
	}
	tr := &http.Transport{
		DialContext:           dial,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: continueTimeout,
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
		DisableCompression:    true,
	}
	if t.tls {
		tr.TLSClientConfig = t.trust.config()
	}
	return tr
}
