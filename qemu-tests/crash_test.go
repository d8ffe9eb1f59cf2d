package qemutests

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/flat"
	"quantavirt/qemu-tests/lab"
)

// defineFlat makes a VM of a flat kernel with a NIC and the smallest memory.
func defineFlat(t *testing.T, n *lab.Node, name string, kernel []byte, restart string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, kernel, 0o600); err != nil {
		t.Fatal(err)
	}
	upload(t, n, name, "kernel", path)
	defineVM(t, n, name, func(config map[string]any) {
		config["memory"] = map[string]any{"size": "32M"}
		config["boot"] = map[string]any{"firmware": "direct", "kernel": name}
		config["restart"] = restart
	})
}

// crashReport is what the test reads of a crash report.
type crashReport struct {
	Time    time.Time `json:"time"`
	Message string    `json:"message"`
	VCPUs   []struct {
		Registers map[string]string `json:"registers"`
		LastExits []struct {
			Reason string `json:"reason"`
		} `json:"last_exits"`
	} `json:"vcpus"`
	Console map[string]string `json:"console"`
	Log     string            `json:"log"`
}

// TestCrash has a guest that ends in a triple fault at once, again and again: it is
// started again, each time later, and says what happened.
func TestCrash(t *testing.T) {
	n := spine(t)
	defineFlat(t, n, "crasher", (&flat.Kernel{}).Print("last words\n").TripleFault().ELF(), "on-crash")
	began := time.Now()
	act(t, n, "crasher", "start")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var v struct {
		Restarts  int       `json:"restarts"`
		CrashedAt time.Time `json:"crashed_at"`
	}
	for tick := time.NewTicker(300 * time.Millisecond); v.Restarts < 2; {
		if err := n.Call(ctx, http.MethodGet, "/api/v1/vms/crasher", nil, &v); err != nil {
			t.Fatalf("after %d restarts: %v", v.Restarts, err)
		}
		<-tick.C
	}
	// A second before the first restart, two before the next.
	if took := time.Since(began); took < 3*time.Second || v.Restarts > 2 || v.CrashedAt.IsZero() {
		t.Errorf("%+v after %v", v, took)
	}
	waitState(t, n, "crasher", "CRASHED", 30*time.Second)
	var c crashReport
	if err := n.Call(ctx, http.MethodGet, "/api/v1/vms/crasher/crash", nil, &c); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Message, "triple fault") || c.Console["serial"] == "" || !strings.HasSuffix(c.Console["serial"], "last words\n") ||
		!strings.Contains(c.Log, "triple fault") || len(c.VCPUs) != 1 || len(c.VCPUs[0].Registers) < 30 {
		t.Fatalf("%+v", c)
	}
	if last := c.VCPUs[0].LastExits; last[len(last)-1].Reason != "shutdown" {
		t.Errorf("%+v", last)
	}
	out, errs, exit := cli(t, n, "vm", "show", "crasher")
	if exit != 0 || !strings.Contains(out, "Crash") || !strings.Contains(out, "vCPU 0: triple fault") {
		t.Errorf("vm show: %d %s%s", exit, out, errs)
	}
}

// TestCyclesByAPI starts a guest that powers off over and over: the daemon and the node
// have no more in use than before.
func TestCyclesByAPI(t *testing.T) {
	n := spine(t)
	defineFlat(t, n, "cycler", (&flat.Kernel{}).PowerOff().ELF(), "never")
	pid := info(t, n).Daemon.PID
	// Files of VMs that the daemon holds, the network's devices, cgroups, memfds.
	count := func() string {
		t.Helper()
		fds := "ls -l /proc/" + strconv.Itoa(pid) + "/fd | grep -c "
		out, err := n.Shell(t.Context(), fds+"state.db; "+fds+"'kvm-vm|pidfd|tun|vhost|memfd|/logs/consoles|/cgroup/vm'; ls /sys/class/net | wc -l; ls -d /sys/fs/cgroup/vm/*/ 2>/dev/null | wc -l; ls /run/quantavirt/vm/*/control.sock 2>/dev/null | wc -l")
		if err != nil {
			t.Fatal(err)
		}
		out = strings.Join(strings.Fields(out), " ")
		// The store is open: what lists and counts works.
		if !regexp.MustCompile(`^[1-9][0-9]* [0-9]+ [1-9][0-9]* [0-9]+ [0-9]+$`).MatchString(out) {
			t.Fatalf("counts: %q", out)
		}
		return out
	}
	cycle := func() {
		act(t, n, "cycler", "start")
		waitState(t, n, "cycler", "STOPPED", 30*time.Second)
	}
	cycle()
	before, began := count(), time.Now()
	for range rounds(3, 200) {
		cycle()
	}
	if after := count(); after != before {
		t.Errorf("before %q, after %q", before, after)
	}
	t.Logf("%d cycles in %v: %s", rounds(3, 200), time.Since(began), before)
}
