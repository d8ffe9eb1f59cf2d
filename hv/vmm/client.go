package vmm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"syscall"
	"time"

	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// UpgradeConsole is the protocol that a console connection is upgraded to.
const UpgradeConsole = "quantavirt-console"

// Client drives one VM process through its control socket. Each call is one
// connection; a Client holds none and may be used from several goroutines.
type Client struct{ socket string }

// NewClient returns a client of the control socket at socketPath. It does not
// connect yet.
func NewClient(socketPath string) *Client { return &Client{socket: socketPath} }

// Info asks what the process says about itself.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return call[Info](ctx, c, "GET", "/info", nil)
}

// Stats reads the counters.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	return call[Stats](ctx, c, "GET", "/stats", nil)
}

// Pause stops all vCPUs and quiesces the devices. When it returns, guest memory
// does not change any more.
func (c *Client) Pause(ctx context.Context) error { return c.act(ctx, ActionPause) }

// Resume lets a paused VM run on.
func (c *Client) Resume(ctx context.Context) error { return c.act(ctx, ActionResume) }

// Reset is the reset button: the guest starts again from its kernel. A paused VM
// stays paused.
func (c *Client) Reset(ctx context.Context) error { return c.act(ctx, ActionReset) }

// PowerButton asks the guest to power off. Whether it does shows in its state.
func (c *Client) PowerButton(ctx context.Context) error { return c.act(ctx, ActionPowerButton) }

// Quit ends the process, with status ExitQuit. It returns once the process has
// agreed; Process.Wait tells when it is gone.
func (c *Client) Quit(ctx context.Context) error { return c.act(ctx, ActionQuit) }

// Wait returns once the state is another than since. It fails with
// QV_ERR_NOENT when the process ends meanwhile.
func (c *Client) Wait(ctx context.Context, since State) (Info, error) {
	for {
		info, err := call[Info](ctx, c, "GET", "/wait", url.Values{"since": {string(since)}})
		if err != nil || info.State != since {
			return info, err
		}
	}
}

// Console attaches to the console called name (ConsoleSerial or ConsoleVirtio):
// first comes what its ring keeps, then what the guest prints; what is written
// is typed in the guest. Several may be attached at once. name may also be that of a
// port of the console, which keeps nothing and has one connection at a time:
// QV_ERR_BUSY for a second.
func (c *Client) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	req := &wire.Request{Method: "GET", Path: "/console/" + name,
		Header: wire.Header{"Connection": "Upgrade", "Upgrade": UpgradeConsole}}
	conn, br, resp, err := c.exchange(ctx, req)
	if err != nil {
		return nil, err
	}
	if resp.Status != 101 {
		conn.Close()
		return nil, errorOf(resp)
	}
	return &console{Conn: conn, r: br}, nil
}

// console is an upgraded connection: its reader may hold bytes that came with
// the answer.
type console struct {
	net.Conn
	r *bufio.Reader
}

func (c *console) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *Client) act(ctx context.Context, a Action) error {
	conn, _, resp, err := c.exchange(ctx, &wire.Request{Method: "POST", Path: "/" + string(a)})
	if err != nil {
		return err
	}
	conn.Close()
	return errorOf(resp)
}

func call[T any](ctx context.Context, c *Client, method, path string, query url.Values) (T, error) {
	var out T
	conn, _, resp, err := c.exchange(ctx, &wire.Request{Method: method, Path: path, Query: query})
	if err != nil {
		return out, err
	}
	conn.Close()
	if err := errorOf(resp); err != nil {
		return out, err
	}
	if err := json.Unmarshal(resp.Body, &out); err != nil {
		return out, qverr.New(qverr.IO, "answer of %s to %s: %w", c.socket, path, err)
	}
	return out, nil
}

func (c *Client) exchange(ctx context.Context, req *wire.Request) (net.Conn, *bufio.Reader, *wire.Response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, nil, nil, c.fail(ctx, req, err)
	}
	// The context bounds the exchange, not the connection that an upgrade leaves.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	br := bufio.NewReader(conn)
	var resp *wire.Response
	if err = req.Write(conn); err == nil {
		resp, err = wire.ReadResponse(br)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, nil, nil, c.fail(ctx, req, err)
	}
	return conn, br, resp, nil
}

// fail gives a failed exchange its code: a process that is gone is not an I/O error.
func (c *Client) fail(ctx context.Context, req *wire.Request, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return qverr.New(qverr.CodeOf(ctxErr), "%s on %s: %w", req.Path, c.socket, ctxErr)
	}
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	if gone {
		return qverr.New(qverr.NoEnt, "%s on %s: the VM process is gone: %w", req.Path, c.socket, err)
	}
	return qverr.New(qverr.CodeOf(err), "%s on %s: %w", req.Path, c.socket, err)
}

// WireError is the body of an answer that is not a success.
type WireError struct {
	Error struct {
		Code    qverr.Code     `json:"code"`
		Name    string         `json:"name"`
		Message string         `json:"message"`
		Details map[string]any `json:"details,omitempty"`
	} `json:"error"`
}

func errorOf(resp *wire.Response) error {
	if resp.Status < 300 {
		return nil
	}
	var body WireError
	if err := json.Unmarshal(resp.Body, &body); err != nil || body.Error.Code == 0 {
		return qverr.New(qverr.IO, "control socket answered %d: %.200q", resp.Status, resp.Body)
	}
	e := qverr.New(body.Error.Code, "%s", body.Error.Message)
	e.Details = body.Error.Details
	return e
}
