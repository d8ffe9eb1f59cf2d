package qemutests

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

// systemInfo is what the tests read of GET /system/info.
type systemInfo struct {
	UptimeSeconds float64 `json:"uptime_seconds"`
	Memory        struct {
		Total int64 `json:"total_bytes"`
	} `json:"memory"`
	BootSteps []struct {
		Name   string `json:"name"`
		TookMS int64  `json:"took_ms"`
	} `json:"boot_steps"`
	KVM struct {
		Available    bool     `json:"available"`
		Vendor       string   `json:"vendor"`
		NestedPaging bool     `json:"nested_paging"`
		Problem      *problem `json:"problem"`
	} `json:"kvm"`
	IOMMU struct {
		Available bool     `json:"available"`
		Kind      string   `json:"kind"`
		Groups    []any    `json:"groups"`
		Problem   *problem `json:"problem"`
	} `json:"iommu"`
	Cards          []card `json:"cards"`
	CryptoProvider string `json:"crypto_provider"`
	DataVolume     struct {
		Persistent bool     `json:"persistent"`
		Message    string   `json:"message"`
		Problem    *problem `json:"problem"`
	} `json:"data_volume"`
	Daemon struct {
		PID      int `json:"pid"`
		Restarts int `json:"restarts"`
		Adopted  int `json:"adopted_vms"`
	} `json:"daemon"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Name     string `json:"name"`
	Message  string `json:"message"`
	Recovery string `json:"recovery"`
}

type card struct {
	Address     string   `json:"address"`
	Serial      string   `json:"serial"`
	Firmware    string   `json:"firmware"`
	Temperature *float64 `json:"temperature_c"`
	SelfTest    string   `json:"self_test"`
	Bound       bool     `json:"bound"`
}

func (s systemInfo) has(name string) *problem {
	for _, p := range s.Problems {
		if p.Name == name {
			return &p
		}
	}
	return nil
}

// settled waits until the node has looked at its cards, which goes on after the
// API is ready: until then it answers QV_ERR_AGAIN.
func settled(t *testing.T, n *lab.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := n.Do(ctx, http.MethodGet, "/api/v1/crypto/quac100", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(a.Body), `"QV_ERR_AGAIN"`) {
			return
		}
		<-tick.C
	}
}

func info(t *testing.T, n *lab.Node) systemInfo {
	t.Helper()
	var s systemInfo
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cli runs the command as a user of another machine would.
func cli(t *testing.T, n *lab.Node, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	program := filepath.Join(shared.root, "build", "bin", "quantavirt")
	cmd := exec.CommandContext(t.Context(), program, args...)
	if n.FromInside {
		cmd = lab.Inside(t.Context(), n.Namespace, program, args...)
	}
	cmd.Env = append(os.Environ(), "QUANTAVIRT_HOST="+n.URL, "QUANTAVIRT_TOKEN="+n.Token, "QUANTAVIRT_CA="+n.CA, "HOME="+t.TempDir())
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exitErr, ok := err.(*exec.ExitError); ok {
		return out.String(), errOut.String(), exitErr.ExitCode()
	}
	if err != nil {
		t.Fatalf("quantavirt %v: %v", args, err)
	}
	return out.String(), errOut.String(), 0
}

func TestSystemInfo(t *testing.T) {
	n := spine(t)
	settled(t, n)
	out, stderr, exit := cli(t, n, "system", "info", "-o", "json")
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, stderr)
	}
	var s systemInfo
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if !s.KVM.Available || s.KVM.Vendor == "" || !s.KVM.NestedPaging {
		t.Errorf("KVM: %+v", s.KVM)
	}
	if !s.IOMMU.Available || s.IOMMU.Kind != "intel" || len(s.IOMMU.Groups) == 0 {
		t.Errorf("IOMMU: %+v", s.IOMMU)
	}
	if len(s.Cards) != 1 {
		t.Fatalf("cards: %+v", s.Cards)
	}
	if c := s.Cards[0]; !c.Bound || c.Serial == "" || c.Firmware != "1.0.0" || c.Temperature == nil || *c.Temperature != 45 || c.SelfTest != "passed" {
		t.Errorf("card: %+v", c)
	}
	if s.CryptoProvider != "quac100" {
		t.Errorf("cryptography is served by %q", s.CryptoProvider)
	}
	if s.UptimeSeconds <= 0 || s.Memory.Total < 2<<30 || len(s.BootSteps) < 5 {
		t.Errorf("uptime %v s, memory %d, %d boot steps", s.UptimeSeconds, s.Memory.Total, len(s.BootSteps))
	}
	if len(s.Problems) != 0 {
		t.Errorf("problems on a node that has everything: %+v", s.Problems)
	}
}

// The life of a VM: its devices work, each action does what it says.
func TestVM(t *testing.T) {
	n := spine(t)
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "scratch", "size": "64M"}, nil); err != nil {
		t.Fatal(err)
	}
	defineVM(t, n, "life", func(c map[string]any) {
		c["cpu"] = map[string]any{"count": 2}
		c["storage"] = []any{map[string]any{"disk": "scratch"}}
	})
	started := time.Now()
	act(t, n, "life", "start")
	console := attach(t, n, "life")
	line := ready(t, console)
	t.Logf("guest's init %.1f s after the start call: %s", time.Since(started).Seconds(), line)
	if field(line, "cpus") != "2" {
		t.Errorf("the guest sees %s CPUs, want 2", field(line, "cpus"))
	}

	t.Run("network", func(t *testing.T) { network(t, n, console) })
	t.Run("disk", func(t *testing.T) {
		sum := ask(t, console, "write vda 8 seed")
		if again := ask(t, console, "sum vda 8"); again != sum {
			t.Errorf("read %s, wrote %s", again, sum)
		}
	})
	t.Run("random", func(t *testing.T) {
		if a, b := ask(t, console, "random"), ask(t, console, "random"); a == b || len(a) != 64 {
			t.Errorf("random: %s, %s", a, b)
		}
	})
	t.Run("vsock", func(t *testing.T) {
		answer := ask(t, console, "vsock /api/v1/system/info "+n.Token)
		if !strings.HasPrefix(answer, "200 ") || !strings.Contains(answer, `"iommu"`) {
			t.Errorf("the host's API over vsock: %.200s", answer)
		}
		if answer := ask(t, console, "vsock /api/v1/system/info qv_wrong"); !strings.HasPrefix(answer, "401 ") {
			t.Errorf("a wrong token over vsock: %.200s", answer)
		}
	})
	t.Run("support bundle", func(t *testing.T) { supported(t, n, "life", console) })
	t.Run("pause", func(t *testing.T) {
		act(t, n, "life", "pause")
		if v := getVM(t, n, "life"); v.State != "PAUSED" {
			t.Fatalf("state %s", v.State)
		}
		act(t, n, "life", "resume")
		ask(t, console, "uptime")
	})
	t.Run("reset", func(t *testing.T) {
		before := uptime(t, console)
		act(t, n, "life", "reset")
		ready(t, console)
		if after := uptime(t, console); after >= before {
			t.Errorf("uptime %v before and %v after the reset", before, after)
		}
	})
	t.Run("reboot by the guest", func(t *testing.T) {
		if err := console.Send("reboot"); err != nil {
			t.Fatal(err)
		}
		ready(t, console)
		if v := getVM(t, n, "life"); v.State != "RUNNING" {
			t.Errorf("state %s", v.State)
		}
	})
	t.Run("stop by the power button", func(t *testing.T) {
		act(t, n, "life", "stop")
		waitState(t, n, "life", "STOPPED", 30*time.Second)
	})
	t.Run("disk outlives the VM", func(t *testing.T) {
		before := starts(t, n, "life")
		act(t, n, "life", "start")
		console := attach(t, n, "life")
		readyAgain(t, console, before)
		sum := ask(t, console, "sum vda 8")
		if want := ask(t, console, "write vda 8 seed"); sum != want {
			t.Errorf("read %s after a restart, wrote %s", sum, want)
		}
		if err := console.Send("poweroff"); err != nil {
			t.Fatal(err)
		}
		waitState(t, n, "life", "STOPPED", 30*time.Second)
	})
	if soaking() {
		t.Run("attested", func(t *testing.T) { attested(t, n) })
	}
}

// attested starts a VM from the measured copies of kernel and initrd. The kernel unpacks
// itself then, which takes longer.
func attested(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Call(t.Context(), http.MethodPatch, "/api/v1/vms/life", map[string]any{"pqc": map[string]any{"attestation": true}}, nil); err != nil {
		t.Fatal(err)
	}
	before := starts(t, n, "life")
	began := time.Now()
	act(t, n, "life", "start")
	took := time.Since(began)
	console := attach(t, n, "life")
	readyAgain(t, console, before)
	t.Logf("measured and started in %.2f s, the guest's init %.1f s after the start call", took.Seconds(), time.Since(began).Seconds())
	act(t, n, "life", "reset")
	ready(t, console)
	files, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.json")
	out, stderr, exit := cli(t, n, "vm", "attest", "life", "--nonce", nonce)
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, stderr)
	}
	if err := os.WriteFile(report, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	out, stderr, exit = cli(t, &lab.Node{}, "attest", "verify", "--any-host", "--nonce", nonce, "--kernel", files.Kernel, "--initrd", files.Initrd,
		"--cmdline", "console=hvc0 quiet panic=-1", report)
	if exit != 0 {
		t.Errorf("exit %d: %s%s", exit, out, stderr)
	}
	if err := console.Send("poweroff"); err != nil {
		t.Fatal(err)
	}
	waitState(t, n, "life", "STOPPED", 30*time.Second)
}

func uptime(t *testing.T, c *lab.Console) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(ask(t, c, "uptime"), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func network(t *testing.T, n *lab.Node, c *lab.Console) {
	lease := ask(t, c, "dhcp")
	if !strings.HasPrefix(field(lease, "address"), "192.168.200.") || field(lease, "router") != "[192.168.200.1]" {
		t.Fatalf("lease: %s", lease)
	}
	page := ask(t, c, "get "+shared.outside.URL)
	if page != "200 "+outsidePage {
		t.Errorf("page through NAT: %q", page)
	}
	if answer := ask(t, c, "ping 192.168.200.1"); answer != "alive" {
		t.Errorf("ping of the gateway: %q", answer)
	}
	for _, address := range []string{"192.168.200.1:9400", "10.0.2.15:9400"} {
		if answer, err := c.Run(t.Context(), "dial "+address); err == nil {
			t.Errorf("the guest reaches the node's API at %s: %q", address, answer)
		}
	}
	var leases struct {
		Items []struct {
			Address string `json:"address"`
			VM      string `json:"vm"`
		} `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/networks/default/leases", nil, &leases); err != nil {
		t.Fatal(err)
	}
	if len(leases.Items) == 0 || leases.Items[0].VM != "life" {
		t.Errorf("leases: %+v", leases)
	}
}

// The daemon is killed under a running guest; then the VM process.
func TestKill(t *testing.T) {
	n := spine(t)
	defineVM(t, n, "victim", nil)
	act(t, n, "victim", "start")
	console := attach(t, n, "victim")
	ready(t, console)
	before := uptime(t, console)
	v := getVM(t, n, "victim")

	t.Run("daemon", func(t *testing.T) {
		for round := range rounds(1, 20) {
			if round > 0 {
				// PID 1 pauses longer and longer before it starts a daemon again
				// that lived for less than ten seconds; here each one lives longer.
				<-time.After(11 * time.Second)
			}
			console = killDaemon(t, n, v, before)
		}
	})
	t.Run("VM process", func(t *testing.T) {
		tap := v.NICs[0].TAP
		if out, err := n.Shell(t.Context(), "ls /sys/class/net"); err != nil || !strings.Contains(out, tap) {
			t.Fatalf("TAP %s is not among %q (%v)", tap, out, err)
		}
		if _, err := n.Shell(t.Context(), "kill -9 "+strconv.Itoa(v.PID)); err != nil {
			t.Fatal(err)
		}
		now := waitState(t, n, "victim", "CRASHED", 30*time.Second)
		if !strings.Contains(now.Reason, "kill") && !strings.Contains(now.Reason, "signal 9") {
			t.Errorf("reason %q", now.Reason)
		}
		out, err := n.Shell(t.Context(), "ls /sys/class/net /sys/fs/cgroup/vm")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, tap) || strings.Contains(out, "victim") {
			t.Errorf("left behind: %q", out)
		}
	})
}

// killDaemon kills the daemon under a running guest and checks that only the
// daemon noticed. It returns a console attached through the next one.
func killDaemon(t *testing.T, n *lab.Node, v vm, before float64) *lab.Console {
	t.Helper()
	pid := info(t, n).Daemon.PID
	if _, err := n.Shell(t.Context(), "kill -9 "+strconv.Itoa(pid)); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	took := waitDaemon(t, n, pid).Sub(killed)
	t.Logf("the daemon is back %.1f s after kill -9", took.Seconds())
	if took > 30*time.Second { // promised: 5 s
		t.Error("the daemon took too long")
	}
	if now := getVM(t, n, "victim"); now.State != "RUNNING" || now.PID != v.PID {
		t.Errorf("VM %s with pid %d, want RUNNING with %d", now.State, now.PID, v.PID)
	}
	console := attach(t, n, "victim")
	if after := uptime(t, console); after <= before {
		t.Errorf("guest uptime %v before and %v after", before, after)
	}
	return console
}

// waitDaemon waits until another daemon than the one with pid is ready.
func waitDaemon(t *testing.T, n *lab.Node, pid int) time.Time {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if a, err := n.Do(t.Context(), http.MethodGet, "/readyz", nil); err == nil && a.Status == http.StatusOK {
			if s := info(t, n); s.Daemon.PID != pid {
				return time.Now()
			}
		}
	}
	t.Fatal("the daemon did not come back")
	return time.Time{}
}
