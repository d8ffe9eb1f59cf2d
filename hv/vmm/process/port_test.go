package process

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	vconsole "quantavirt/hv/virtio/console"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// TestPort: a port has one connection at a time, and is free again when that ends.
func TestPort(t *testing.T) {
	vm, path := newTestVM(t, vmm.StateRunning)
	vm.started = time.Now()
	con, err := vconsole.New(io.Discard, vconsole.Options{Ports: []string{"agent"}})
	if err != nil {
		t.Fatal(err)
	}
	vm.virtioConsole = con
	c := vmm.NewClient(path)
	for range 2 {
		conn, err := c.Console(t.Context(), "agent")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Console(t.Context(), "agent"); !errors.Is(err, qverr.Busy) {
			t.Errorf("a second connection: %v", err)
		}
		conn.Close()
		for { // the process notices the end by itself
			again, err := c.Console(t.Context(), "agent")
			if err == nil {
				again.Close()
				break
			}
			if !errors.Is(err, qverr.Busy) {
				t.Fatal(err)
			}
		}
		for con.Stream("agent").Attach() != nil {
		}
		con.Stream("agent").Detach()
	}
	if _, err := c.Console(t.Context(), "none"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("no port: %v", err)
	}
}

// TestSettings: what cannot be set says so.
func TestSettings(t *testing.T) {
	vm, path := newTestVM(t, vmm.StateStarting)
	c := vmm.NewClient(path)
	if err := c.SetBalloon(t.Context(), 1<<20); !errors.Is(err, qverr.State) {
		t.Errorf("while it starts: %v", err)
	}
	vm.mu.Lock()
	vm.started = time.Now()
	vm.mu.Unlock()
	if err := c.SetBalloon(t.Context(), 1<<20); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("no balloon: %v", err)
	}
	if err := c.SetLink(t.Context(), "nic0", true); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("no network device: %v", err)
	}
	got := talk(t, path, "PUT /balloon HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{")
	if want := `"name":"QV_ERR_INVAL"`; !strings.Contains(got, want) {
		t.Errorf("%s", got)
	}
}
