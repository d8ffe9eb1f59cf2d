package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

const (
	// maxWait bounds a long poll, so that a caller that is gone is noticed.
	maxWait = 60 * time.Second
	// idleTime is how long a connection may be silent between requests.
	idleTime = 5 * time.Minute
	// acceptPause is how long to let connections end when no more can be accepted.
	acceptPause = 100 * time.Millisecond
)

// serve answers the control socket until it is closed.
func (vm *VM) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: some are closed again as
			// connections end, and the next Accept says whether that helped.
			vm.log.Warn("the control socket cannot accept", "err", err)
			<-time.After(acceptPause)
			continue
		}
		go vm.serveConn(conn)
	}
}

func (vm *VM) serveConn(conn net.Conn) {
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 1024)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idleTime))
		req, err := wire.ReadRequest(br)
		if errors.Is(err, wire.ErrMalformed) {
			_ = answerError(qverr.New(qverr.Inval, "control socket: %w", err)).Write(conn)
			return
		}
		if err != nil {
			return
		}
		if attach, refused := vm.upgrade(req); attach != nil {
			_ = conn.SetReadDeadline(time.Time{})
			resp := wire.Response{Status: 101, Header: wire.Header{"Connection": "Upgrade", "Upgrade": req.Upgrade()}}
			_ = resp.Write(conn) // attach notices who is gone
			attach(conn, br)
			return
		} else if refused != nil {
			_ = answerError(refused).Write(conn)
			return
		}
		if err := vm.answer(req).Write(conn); err != nil || strings.EqualFold(req.Header["connection"], "close") {
			return
		}
	}
}

const consolePath = "/console/"

// upgrade finds what serves the console or port that a request wants to attach to;
// neither it nor an error for other requests.
func (vm *VM) upgrade(req *wire.Request) (attach func(net.Conn, io.Reader), refused error) {
	if req.Upgrade() == "" || req.Method != "GET" || !vm.hasMachine() {
		return nil, nil
	}
	switch req.Upgrade() {
	case vmm.UpgradeVsock:
		return vm.attachDialer()
	case vmm.UpgradeConsole:
	default:
		return nil, nil
	}
	name := strings.TrimPrefix(req.Path, consolePath)
	if c, ok := vm.consoles[name]; ok {
		return c.attach, nil
	}
	return vm.attachPort(name)
}

// routes are the requests without a name in their path.
var routes = map[string]func(*VM, *wire.Request) *wire.Response{
	"GET /info":          func(vm *VM, _ *wire.Request) *wire.Response { return answerJSON(200, vm.info()) },
	"GET /stats":         func(vm *VM, _ *wire.Request) *wire.Response { return answerJSON(200, vm.stats()) },
	"GET /wait":          (*VM).answerWait,
	"POST /pause":        act(vmm.ActionPause, 200),
	"POST /resume":       act(vmm.ActionResume, 200),
	"POST /reset":        act(vmm.ActionReset, 200),
	"POST /power-button": act(vmm.ActionPowerButton, 202),
	"POST /quit":         act(vmm.ActionQuit, 202),
}

func (vm *VM) answer(req *wire.Request) *wire.Response {
	if f, ok := routes[req.Method+" "+req.Path]; ok {
		return f(vm, req)
	}
	if name, ok := strings.CutPrefix(req.Path, consolePath); ok && req.Method == "GET" {
		return vm.answerConsole(name)
	}
	if f, ok := settings[settingOf(req.Path)]; ok && req.Method == "PUT" {
		return f(vm, req)
	}
	return answerError(qverr.New(qverr.NoEnt, "control socket: no %s %s", req.Method, req.Path))
}

func act(a vmm.Action, status int) func(*VM, *wire.Request) *wire.Response {
	return func(vm *VM, _ *wire.Request) *wire.Response {
		if err := vm.do(a); err != nil {
			return answerError(err)
		}
		return answerJSON(status, vm.info())
	}
}

func (vm *VM) answerWait(req *wire.Request) *wire.Response {
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	vm.wait(vmm.State(req.Query.Get("since")), timer.C)
	return answerJSON(200, vm.info())
}

func (vm *VM) answerConsole(name string) *wire.Response {
	if !vm.hasMachine() {
		return answerError(qverr.New(qverr.State, "console: the VM is %s", vmm.StateStarting))
	}
	c, ok := vm.consoles[name]
	if !ok && vm.port(name) != nil {
		return answerError(qverr.New(qverr.Inval, "port %q of the console keeps nothing: attach to it", name))
	}
	if !ok {
		return answerError(qverr.New(qverr.NoEnt, "no console %q", name))
	}
	data, err := c.ring.Snapshot()
	if err != nil && !errors.Is(err, io.EOF) {
		return answerError(qverr.New(qverr.IO, "console %s: %w", name, err))
	}
	return &wire.Response{Status: 200, Header: wire.Header{"Content-Type": "application/octet-stream"}, Body: data}
}

func answerJSON(status int, v any) *wire.Response {
	body, err := json.Marshal(v)
	if err != nil {
		return answerError(qverr.New(qverr.Generic, "answer: %w", err))
	}
	return &wire.Response{Status: status, Header: wire.Header{"Content-Type": "application/json"}, Body: append(body, '\n')}
}

func answerError(err error) *wire.Response {
	e := qverr.From(err)
	var body vmm.WireError
	body.Error.Code, body.Error.Message, body.Error.Details = e.Code, err.Error(), e.Details
	status := 500
	if entry, ok := qverr.Lookup(e.Code); ok {
		body.Error.Name = entry.Name
		if entry.HTTPStatus >= 400 {
			status = entry.HTTPStatus
		}
	}
	data, err := json.Marshal(body)
	if err != nil {
		slog.Error("an error could not be encoded", "err", err)
	}
	return &wire.Response{Status: status, Header: wire.Header{"Content-Type": "application/json"}, Body: append(data, '\n')}
}
