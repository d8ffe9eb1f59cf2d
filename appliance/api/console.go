package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// upgradeConsole is the protocol of a raw console stream.
const upgradeConsole = "quantavirt-console"

// attachTime bounds how long attaching may take, not how long it lasts.
const attachTime = 10 * time.Second

// GetVMConsole attaches to a console, or shows what its ring keeps.
func (s *Server) GetVMConsole(w http.ResponseWriter, r *http.Request, name string, params spec.GetVMConsoleParams) {
	device := string(params.Device)
	upgrade := strings.ToLower(r.Header.Get("Upgrade"))
	if upgrade == "" {
		s.consoleLog(w, r, name, device)
		return
	}
	if upgrade != upgradeConsole && upgrade != "websocket" {
		s.fail(w, r, qverr.New(qverr.Inval, "the console upgrades to %s or websocket, not %.32q", upgradeConsole, upgrade))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), attachTime)
	guest, err := s.VMs.Console(ctx, name, device)
	cancel()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer func() { _ = guest.Close() }()
	if upgrade == "websocket" {
		err = overWebSocket(w, r, guest)
	} else {
		err = overRaw(w, guest)
	}
	if err != nil {
		s.Log.Debug("console of VM "+name, "err", err, "request_id", requestOf(r).id)
	}
}

func (s *Server) consoleLog(w http.ResponseWriter, r *http.Request, name, device string) {
	data, err := s.VMs.ConsoleLog(name, device)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	boundWrite(w)
	w.Header().Set("Content-Type", octets)
	_, _ = w.Write(data)
}

func overRaw(w http.ResponseWriter, guest io.ReadWriteCloser) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return qverr.New(qverr.Generic, "take over the connection: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{})
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgradeConsole + "\r\n\r\n"
	if _, err := io.WriteString(conn, switching); err != nil {
		return err
	}
	return pipe(&hijacked{conn, buffered.Reader}, guest)
}

// hijacked reads first what the server had read ahead.
type hijacked struct {
	net.Conn
	r *bufio.Reader
}

func (h *hijacked) Read(p []byte) (int, error) { return h.r.Read(p) }

func overWebSocket(w http.ResponseWriter, r *http.Request, guest io.ReadWriteCloser) error {
	// The token in the header is what admits; a browser page of another origin
	// has none.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	return pipe(websocket.NetConn(ctx, ws, websocket.MessageBinary), guest)
}

// pipe copies in both directions until one of them ends.
func pipe(a, b io.ReadWriteCloser) error {
	done := make(chan error, 2)
	copyTo := func(dst, src io.ReadWriteCloser) {
		_, err := io.Copy(dst, src)
		done <- err
	}
	go copyTo(a, b)
	go copyTo(b, a)
	err := <-done
	_ = a.Close()
	_ = b.Close()
	<-done
	return err
}
