package initapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quantavirt/internal/qverr"
)

// maxAnswer bounds what the client reads; PID 1's log is the longest answer.
const maxAnswer = 4 << 20

// Client talks to PID 1. Its methods may be called from any goroutine; errors
// carry a code: QV_ERR_NOENT for what PID 1 does not know, that of the errno
// when the socket does not answer.
//
// Each call is a connection of its own, without http.Client: its pool and its
// policies would be for nothing, and the daemon's first call stands in the way of
// the boot.
type Client struct{ path string }

// NewClient makes a client of the socket at path, usually Socket. It does not
// connect yet.
func NewClient(path string) *Client { return &Client{path: path} }

// Boot is what PID 1 found; with wait it answers when all boot steps have ended.
func (c *Client) Boot(ctx context.Context, wait bool) (Boot, error) {
	var b Boot
	q := url.Values{}
	if wait {
		q.Set("wait", "1")
	}
	return b, c.json(ctx, http.MethodGet, "/boot", q, nil, &b)
}

// BootStep is Boot once the named step has ended. An unknown name is
// QV_ERR_NOENT.
func (c *Client) BootStep(ctx context.Context, step string) (Boot, error) {
	var b Boot
	return b, c.json(ctx, http.MethodGet, "/boot", url.Values{"step": {step}}, nil, &b)
}

// Cards is the latest look for cards, once there was one after the numbered one.
func (c *Client) Cards(ctx context.Context, after int) (Cards, error) {
	var cards Cards
	return cards, c.json(ctx, http.MethodGet, "/cards", url.Values{"after": {strconv.Itoa(after)}}, nil, &cards)
}

// Exit is how the process with that number ended, QV_ERR_NOENT while it is not
// known.
func (c *Client) Exit(ctx context.Context, pid int) (Exit, error) {
	var e Exit
	return e, c.json(ctx, http.MethodGet, "/exits", url.Values{"pid": {strconv.Itoa(pid)}}, nil, &e)
}

// WaitExit is Exit, but waits while the process lives. QV_ERR_NOENT: there is
// no such process and PID 1 has not reaped one.
func (c *Client) WaitExit(ctx context.Context, pid int) (Exit, error) {
	var e Exit
	return e, c.json(ctx, http.MethodGet, "/exits", url.Values{"pid": {strconv.Itoa(pid)}, "wait": {"1"}}, nil, &e)
}

// Console sets the banner of all consoles and shows it.
func (c *Client) Console(ctx context.Context, b Banner) error {
	return c.json(ctx, http.MethodPost, "/console", nil, b, nil)
}

// Ready tells PID 1 that the API answers.
func (c *Client) Ready(ctx context.Context) error {
	return c.json(ctx, http.MethodPost, "/ready", nil, nil, nil)
}

// Reboot asks for an orderly reboot and returns at once.
func (c *Client) Reboot(ctx context.Context) error {
	return c.json(ctx, http.MethodPost, "/reboot", nil, nil, nil)
}

// PowerOff asks for an orderly power-off and returns at once.
func (c *Client) PowerOff(ctx context.Context) error {
	return c.json(ctx, http.MethodPost, "/poweroff", nil, nil, nil)
}

// Kexec asks for an orderly end and then for the kernel that was loaded with
// kexec_file_load(2); it returns at once.
func (c *Client) Kexec(ctx context.Context) error {
	return c.json(ctx, http.MethodPost, "/kexec", nil, nil, nil)
}

// Blessed tells PID 1 that this boot is no trial of an update, or no more.
func (c *Client) Blessed(ctx context.Context) error {
	return c.json(ctx, http.MethodPost, "/blessed", nil, nil, nil)
}

// Unlock has PID 1 open the data volume with the recovery key. The daemon is ended
// soon after the answer, and started anew on the volume. QV_ERR_PERM: another key;
// QV_ERR_STATE: no data volume is shut.
func (c *Client) Unlock(ctx context.Context, recoveryKey string) error {
	return c.json(ctx, http.MethodPost, "/unlock", nil, Unlock{RecoveryKey: recoveryKey}, nil)
}

// Log is what PID 1 and the daemon wrote last, as text.
func (c *Client) Log(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/log", nil, nil)
}

func (c *Client) json(ctx context.Context, method, path string, q url.Values, in, out any) error {
	answer, err := c.do(ctx, method, path, q, in)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return qverr.New(qverr.Generic, "PID 1: %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, in any) ([]byte, error) {
	fail := func(code qverr.Code, err error) ([]byte, error) {
		return nil, qverr.New(code, "PID 1: %s %s: %w", method, path, err)
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fail(qverr.Generic, err)
		}
		body = bytes.NewReader(data)
	}
	u := url.URL{Scheme: "http", Host: "init", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return fail(qverr.Generic, err)
	}
	req.Close = true
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return fail(qverr.CodeOf(err), err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	failIO := func(err error) ([]byte, error) { // at the end of ctx it is the deadline that fails
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fail(qverr.CodeOf(err), err)
	}
	if err := req.Write(conn); err != nil {
		return failIO(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return failIO(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return failIO(err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		var e qverr.Body
		if json.Unmarshal(answer, &e) == nil && e.Error.Code != 0 {
			return fail(e.Error.Code, fmt.Errorf("%s", e.Error.Detail))
		}
		return fail(qverr.Generic, fmt.Errorf("status %d", resp.StatusCode))
	}
	return answer, nil
}
