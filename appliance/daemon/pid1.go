package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"

	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// pid1 talks to PID 1 on its socket.
type pid1 struct{ http *http.Client }

func newPID1(socket string) *pid1 {
	var d net.Dialer
	return &pid1{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

func (p *pid1) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return qverr.New(qverr.Generic, "PID 1 %s: %w", path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://init"+path, body)
	if err != nil {
		return qverr.New(qverr.Generic, "PID 1 %s: %w", path, err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "PID 1 %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return qverr.New(qverr.NoEnt, "PID 1 knows no %s", path)
	case resp.StatusCode >= 300:
		return qverr.New(qverr.Generic, "PID 1 %s: status %d", path, resp.StatusCode)
	case out == nil:
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return qverr.New(qverr.Generic, "PID 1 %s: %w", path, err)
	}
	return nil
}

func (p *pid1) Boot(ctx context.Context, wait bool) (b initapi.Boot, err error) {
	path := "/boot"
	if wait {
		path += "?wait=1"
	}
	return b, p.do(ctx, http.MethodGet, path, nil, &b)
}

func (p *pid1) Exit(ctx context.Context, pid int) (e initapi.Exit, err error) {
	return e, p.do(ctx, http.MethodGet, "/exits?pid="+strconv.Itoa(pid), nil, &e)
}

func (p *pid1) Console(ctx context.Context, b initapi.Banner) error {
	return p.do(ctx, http.MethodPost, "/console", b, nil)
}

func (p *pid1) Ready(ctx context.Context) error {
	return p.do(ctx, http.MethodPost, "/ready", nil, nil)
}

func (p *pid1) Reboot(ctx context.Context) error {
	return p.do(ctx, http.MethodPost, "/reboot", nil, nil)
}

func (p *pid1) PowerOff(ctx context.Context) error {
	return p.do(ctx, http.MethodPost, "/poweroff", nil, nil)
}
