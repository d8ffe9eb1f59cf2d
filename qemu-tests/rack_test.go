package qemutests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quantavirt/image/netboot"
	"quantavirt/image/tools"
	"quantavirt/qemu-tests/lab"
)

// rack is a network with a quantavirt-netboot, made anew for each start of a node.
type rack struct {
	args    []string
	config  string // of the machines
	updates string // directory, "" for none
	state   string // directory, "" for a new one each time
	beside  bool   // another DHCP server

	*rackService // of the start that was last
}

// serve is what lab.Netboot calls.
func (r *rack) serve(t *testing.T) func(namespace, hash string) error {
	return func(namespace, _ string) (err error) {
		if err := cable(t, namespace, r.beside); err != nil {
			return err
		}
		r.rackService, err = startRack(t, namespace, r)
		return err
	}
}

// cable gives the server its address, at the node's card, or at a bridge where
// another DHCP server is too.
func cable(t *testing.T, namespace string, beside bool) error {
	if !beside {
		return ip("-n", namespace, "addr", "add", rackServer+"/24", "dev", lab.RackInterface)
	}
	other := namespace + "-dhcp"
	t.Cleanup(func() { _ = ip("netns", "del", other) })
	for _, line := range []string{
		"netns add " + other,
		"-n " + namespace + " link add rack type bridge forward_delay 0",
		"-n " + namespace + " link set " + lab.RackInterface + " master rack",
		"-n " + namespace + " link add other type veth peer name eth0 netns " + other,
		"-n " + namespace + " link set other master rack up",
		"-n " + namespace + " link set rack up",
		"-n " + namespace + " addr add " + rackServer + "/24 dev rack",
		"-n " + other + " addr add 10.71.0.2/24 dev eth0",
		"-n " + other + " link set eth0 up",
	} {
		if err := ip(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return startUDHCPD(t, other)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// startUDHCPD starts busybox's DHCP server, which knows nothing of booting.
func startUDHCPD(t *testing.T, namespace string) error {
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	text := "start 10.71.0.100\nend 10.71.0.150\ninterface eth0\nlease_file " + dir + "/leases\npidfile " + dir + "/pid\noption subnet 255.255.255.0\n"
	for name, data := range map[string]string{conf: text, filepath.Join(dir, "leases"): ""} {
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			return err
		}
	}
	cmd := lab.Inside(context.Background(), namespace, "busybox", "udhcpd", "-f", "-S", conf)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		return err
	}
	t.Cleanup(func() { end(cmd) })
	return nil
}

// end ends a process that ignores nothing.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

// rackService is a quantavirt-netboot in a namespace.
type rackService struct {
	ready chan struct{}
	ended chan struct{}

	mu    sync.Mutex
	lines []string
}

// startRack starts the program that users have and waits until it serves.
func startRack(t *testing.T, namespace string, r *rack) (*rackService, error) {
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(t.TempDir(), "rack.yaml")
	if err := os.WriteFile(config, []byte(r.config), 0o644); err != nil {
		return nil, err
	}
	iface := lab.RackInterface
	if err := ip("-n", namespace, "link", "show", "rack"); err == nil {
		iface = "rack"
	}
	state := r.state
	if state == "" {
		state = t.TempDir()
	}
	args := []string{"--interface", iface, "--tree", imageFile(""), "--ipxe", root.Path("usr", "lib", "ipxe"),
		"--config", config, "--state", state, "--cmdline", netboot.DefaultCmdline + " " + noTimerCheck}
	if r.updates != "" {
		args = append(args, "--updates", r.updates)
	}
	cmd := lab.Inside(context.Background(), namespace, filepath.Join(shared.root, "build", "bin", "quantavirt-netboot"), append(args, r.args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &rackService{ready: make(chan struct{}), ended: make(chan struct{})}
	go s.read(out)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("quantavirt-netboot: %v", err)
		}
		if t.Failed() {
			t.Logf("log of quantavirt-netboot:\n%s", strings.Join(s.lines, "\n"))
		}
	})
	select {
	case <-s.ready:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("quantavirt-netboot ended: %s", strings.Join(s.lines, "\n"))
	case <-time.After(30 * time.Second):
		return nil, fmt.Errorf("quantavirt-netboot is not ready: %s", strings.Join(s.lines, "\n"))
	}
}

func (s *rackService) read(r io.Reader) {
	defer close(s.ended)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		s.mu.Lock()
		s.lines = append(s.lines, lines.Text())
		s.mu.Unlock()
		if strings.Contains(lines.Text(), "] netboot: ready ") {
			close(s.ready)
		}
	}
}

// asked is what the server's status page says that the node asked.
func (s *rackService) asked(t *testing.T, n *lab.Node) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+rackServer+"/machines", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page struct {
		Items []netboot.Machine `json:"items"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		t.Fatal(err)
	}
	var asked []string
	for _, m := range page.Items {
		if m.MAC != lab.MAC && m.MAC != "" {
			t.Errorf("a stranger: %+v", m)
		}
		for _, e := range m.Events {
			asked = append(asked, e.Asked)
			t.Logf("%5.1f s after QEMU's start: %s: %s", e.At.Sub(n.Started).Seconds(), e.Asked, e.Answer)
		}
	}
	return asked
}
