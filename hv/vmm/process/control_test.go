package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/config"
	"quantavirt/hv/machine"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// newTestVM serves a VM without a machine: what can be tested without KVM.
func newTestVM(t *testing.T, state vmm.State) (*VM, string) {
	t.Helper()
	vm := newVM(config.Machine{Name: "web", CPUs: 1, Memory: 64 << 20}, slog.New(slog.DiscardHandler))
	vm.state = state
	vm.consoles[vmm.ConsoleVirtio] = &console{ring: ring.NewMemory(4096)}
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { vm.serve(l); close(done) }()
	t.Cleanup(func() {
		l.Close()
		<-done
		vm.consoles[vmm.ConsoleVirtio].ring.Close()
	})
	return vm, path
}

func TestStarting(t *testing.T) {
	_, path := newTestVM(t, vmm.StateStarting)
	c := vmm.NewClient(path)
	info, err := c.Info(t.Context())
	if err != nil || info.Name != "web" || info.State != vmm.StateStarting {
		t.Errorf("%+v, %v", info, err)
	}
	if s, err := c.Stats(t.Context()); err != nil || s.Process.HeapBytes == 0 || s.UptimeSeconds != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for name, act := range map[string]func(context.Context) error{"pause": c.Pause, "resume": c.Resume, "reset": c.Reset, "power button": c.PowerButton} {
		if err := act(t.Context()); !errors.Is(err, qverr.State) || qverr.From(err).Details["state"] != string(vmm.StateStarting) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Console(t.Context(), vmm.ConsoleVirtio); !errors.Is(err, qverr.State) {
		t.Errorf("console: %v", err)
	}
}

// talk sends raw bytes and returns what comes back until the server closes.
func talk(t *testing.T, path, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestHTTP(t *testing.T) {
	_, path := newTestVM(t, vmm.StateStarting)
	for _, tc := range []struct{ request, status, body string }{
		{"GET /info HTTP/1.1\r\nConnection: close\r\n\r\n", "200 OK", `"name":"web"`},
		{"GET /info HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "404 Not Found", `"name":"QV_ERR_NOENT"`},
		{"GET /pause HTTP/1.1\r\nConnection: close\r\n\r\n", "404 Not Found", `"code":-6`},
		{"POST /pause HTTP/1.1\r\nConnection: close\r\n\r\n", "409 Conflict", `"code":-16`},
		{"POST /pause HTTP/1.1\r\nConnection: close\r\nContent-Length: x\r\n\r\n", "400 Bad Request", `"code":-5`},
		{"nonsense\r\n\r\n", "400 Bad Request", `"name":"QV_ERR_INVAL"`},
	} {
		got := talk(t, path, tc.request)
		if !strings.Contains(got, "HTTP/1.1 "+tc.status+"\r\n") || !strings.Contains(got, tc.body) {
			t.Errorf("%q:\n%s", tc.request, got)
		}
	}
}

func TestWait(t *testing.T) {
	vm, path := newTestVM(t, vmm.StateStarting)
	c := vmm.NewClient(path)
	type result struct {
		info vmm.Info
		err  error
	}
	got := make(chan result, 1)
	go func() {
		info, err := c.Wait(t.Context(), vmm.StateStarting)
		got <- result{info, err}
	}()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(short, vmm.StateStarting); !errors.Is(err, qverr.Timeout) {
		t.Errorf("%v", err)
	}
	vm.advance(vmm.ActionGuestEnd)
	if r := <-got; r.err != nil || r.info.State != vmm.StateEnding {
		t.Errorf("%+v, %v", r.info, r.err)
	}
	if vm.lastState() != vmm.StateStarting {
		t.Errorf("last state %s", vm.lastState())
	}
}

func TestReportOf(t *testing.T) {
	cause := qverr.New(qverr.EPTViolation, "no memory at 0x1234")
	for _, tc := range []struct {
		exit   machine.Exit
		status int
		reason vmm.Reason
		code   qverr.Code
	}{
		{machine.Exit{Reason: machine.PoweredOff}, vmm.ExitGuestOff, vmm.ReasonGuestOff, 0},
		{machine.Exit{Reason: machine.Quit}, vmm.ExitQuit, vmm.ReasonQuit, 0},
		{machine.Exit{Reason: machine.TripleFault}, vmm.ExitTripleFault, vmm.ReasonTripleFault, qverr.TripleFault},
		{machine.Exit{Reason: machine.Failed, Err: cause}, vmm.ExitInternal, vmm.ReasonInternal, qverr.EPTViolation},
		{machine.Exit{Reason: machine.Failed}, vmm.ExitInternal, vmm.ReasonInternal, qverr.Generic},
	} {
		r := reportOf(tc.exit)
		if r.Status != tc.status || r.Reason != tc.reason || r.Code != tc.code || r.Message == "" {
			t.Errorf("%+v: %+v", tc.exit, r)
		}
	}
}

func TestConsoleAttach(t *testing.T) {
	var typed strings.Builder
	con := &console{ring: ring.NewMemory(4096)}
	con.setInput(&typed)
	defer con.ring.Close()
	_, _ = con.ring.Write([]byte("kept "))
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() { con.attach(theirs, theirs); close(done) }()
	buf := make([]byte, 20)
	if n, err := ours.Read(buf); err != nil || string(buf[:n]) != "kept " {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	_, _ = con.ring.Write([]byte("live"))
	if n, err := ours.Read(buf); err != nil || string(buf[:n]) != "live" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := io.WriteString(ours, "typed"); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	<-done
	if typed.String() != "typed" {
		t.Errorf("%q", typed.String())
	}
}
