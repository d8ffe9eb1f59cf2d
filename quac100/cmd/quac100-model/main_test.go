package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

// start runs the command and waits for its line.
func start(t *testing.T, args ...string) (socket string, stop func() error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "card.sock")
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--socket", socket}, args...), w, io.Discard)
		w.CloseWithError(errors.Join(io.EOF, err))
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || line != "listening on "+socket+"\n" {
		t.Fatalf("printed %q: %v", line, err)
	}
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return socket, stop
}

func client(t *testing.T, socket string) func(regs.Reg) uint32 {
	t.Helper()
	c, err := vfiouser.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.WriteConfig(regs.CfgCommand, []byte{2, 0}); err != nil {
		t.Fatal(err)
	}
	return func(r regs.Reg) uint32 {
		var p [4]byte
		if err := c.Read(uint64(r), p[:]); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint32(p[:])
	}
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(what)
		}
	}
}

func TestOptions(t *testing.T) {
	socket, stop := start(t, "--serial", "77", "--temp", "51.5", "--firmware", "2.3.4", "--fail-self-test", "0x4")
	read := client(t, socket)
	await(t, "no error state", func() bool { return regs.Status(read(regs.DevStatus))&regs.StatusError != 0 })
	for r, want := range map[regs.Reg]uint32{
		regs.SerialLo: 77, regs.TempCore: 51500, regs.FWVersion: 0x02030004, regs.SelfTestResult: uint32(regs.TestDecaps),
	} {
		if got := read(r); got != want {
			t.Errorf("%v = %#x, want %#x", r, got, want)
		}
	}
	if err := stop(); err != nil { // with the client still there
		t.Error(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestControlSocket(t *testing.T) {
	control := filepath.Join(t.TempDir(), "control.sock")
	socket, _ := start(t, "--control", control, "--fault", `{"temperature":50}`)
	read := client(t, socket)
	await(t, "not ready", func() bool { return regs.Status(read(regs.DevStatus))&regs.StatusReady != 0 })
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", control)
	}}}
	defer hc.CloseIdleConnections()
	put := func(body string) int {
		req, err := http.NewRequest(http.MethodPut, "http://card/faults", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := read(regs.TempCore); got != 50000 {
		t.Errorf("temperature %d", got)
	}
	for _, bad := range []string{``, `{"temperature":"x"}`, `{"heat":1}`, `{"hang":"sometimes"}`} {
		if s := put(bad); s != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, s)
		}
	}
	if s := put(`{"temperature":96,"power_mw":80000,"drop_interrupts":1,"latency_ms":0,"dma":{"count":0},"crypto":0,"self_test":0,"bias":[{"source":1,"stuck":true}],"hang":"none"}`); s != http.StatusNoContent {
		t.Errorf("status %d", s)
	}
	want := regs.StatusTempCrit | regs.StatusPowerWarn
	if s := regs.Status(read(regs.DevStatus)); s&want != want {
		t.Errorf("DEV_STATUS %#x", uint32(s))
	}
	resp, err := hc.Get("http://card/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var h regs.Health
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil || h.TempCore != 96000 || h.State != regs.HealthCritical {
		t.Errorf("%+v %v", h, err)
	}
	put(`{"tamper":true,"firmware":true}`)
	if s := regs.Status(read(regs.DevStatus)); s&regs.StatusZeroized == 0 {
		t.Errorf("DEV_STATUS %#x", uint32(s))
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"--socket", "x", "more"}, {"--socket", "x", "--firmware", "new"}, {"--nonsense"}, {"--fault", "{", "--socket", "x"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if err := run(t.Context(), []string{"--version"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--version: %v", err)
	}
	if err := run(t.Context(), []string{"--socket", "/nonexistent/x"}, io.Discard, io.Discard); err == nil {
		t.Error("a socket in no directory")
	}
}
