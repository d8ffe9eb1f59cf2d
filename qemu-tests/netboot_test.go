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

const (
	rackServer   = "10.71.0.1"
	rackSerial   = "LAB-0001"
	rackHostname = "rack-node-1"
	noPXE        = "name=opt/org.tianocore/IPv%dPXESupport,string=n" // takes PXE from OVMF
)

// noTimerCheck keeps a kernel from taking the emulated timer of a machine that
// has much to do for a broken one: it then panics and boots a second time.
const noTimerCheck = "no_timer_check"

// stubWords gives it to a unified kernel image, see systemd-stub(7).
const stubWords = "type=11,value=io.systemd.stub.kernel-cmdline-extra=" + noTimerCheck

var fullMode = []string{"--mode", "full", "--range", "10.71.0.100-10.71.0.150"}

// netbootCases are the ways to boot that firmware knows.
var netbootCases = []struct {
	name     string
	firmware string
	rom      bool
	server   []string // arguments
	beside   bool     // another DHCP server
	extra    []string // for QEMU
	cmdline  bool     // the machine has one of the server's making
	asked    []string // what the server saw, in this order
}{
	{"bios-pxe", lab.FirmwareBIOS, true, fullMode, false, nil, true,
		[]string{"DHCP DISCOVER of iPXE, Intel x86PC", "HTTP boot script", "HTTP /vmlinuz", "HTTP /initramfs.zst", "HTTP configuration"}},
	{"uefi-pxe", lab.FirmwareUEFI, false, fullMode, false, nil, true,
		[]string{"DHCP DISCOVER of PXE, EFI x86-64", "TFTP snponly.efi", "DHCP DISCOVER of iPXE, EFI x86-64", "HTTP boot script", "HTTP /vmlinuz", "HTTP configuration"}},
	{"uefi-pxe-proxy", lab.FirmwareUEFI, false, []string{"--uefi", "uki"}, true, nil, false,
		[]string{"DHCP DISCOVER of PXE, EFI x86-64", "DHCP REQUEST of PXE, EFI x86-64", "TFTP quantavirt.efi"}},
	{"uefi-http", lab.FirmwareUEFI, false, fullMode, false, []string{"-fw_cfg", fmt.Sprintf(noPXE, 4), "-fw_cfg", fmt.Sprintf(noPXE, 6)}, false,
		[]string{"DHCP DISCOVER of HTTP boot, EFI x86-64 boot from HTTP", "HTTP /quantavirt.efi"}},
}

// A machine without a disk boots from quantavirt-netboot, by each way that
// firmware knows, and its API answers in the network that it booted from.
func TestNetboot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, c := range netbootCases {
		t.Run(c.name, func(t *testing.T) {
			if c.beside && rounds(0, 1) == 0 {
				t.Skip("only under make soak")
			}
			var s *rackService
			n := boot(t, lab.Options{
				Name: c.name, Firmware: c.firmware, FirstToken: !c.cmdline, Memory: 3072,
				Extra: append(c.extra, "-smbios", "type=1,serial="+rackSerial, "-smbios", stubWords),
				Netboot: &lab.Netboot{ROM: c.rom, Serve: func(namespace, hash string) error {
					if err := cable(t, namespace, c.beside); err != nil {
						return err
					}
					args := c.server
					if hash != "" {
						args = append(args, "--token-hash", hash)
					}
					var err error
					s, err = startRack(t, namespace, args)
					return err
				}},
			})
			if c.cmdline { // the banner comes again with the name that the configuration gives
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := n.WaitLine(ctx, " on "+rackHostname); err != nil {
					t.Fatal(err)
				}
			}
			if name := hostname(t, n); (name == rackHostname) != c.cmdline {
				t.Errorf("the node calls itself %q", name)
			}
			if !strings.HasPrefix(n.URL, "https://10.71.0.1") {
				t.Errorf("the API is at %s", n.URL)
			}
			runVM(t, n)
			seen := s.asked(t, n)
			for _, want := range c.asked {
				i := 0
				for i < len(seen) && !strings.HasPrefix(seen[i], want) {
					i++
				}
				if i == len(seen) {
					t.Fatalf("%q is missing, or at another place", want)
				}
				seen = seen[i+1:]
			}
		})
	}
}

func hostname(t *testing.T, n *lab.Node) string {
	t.Helper()
	var info struct {
		Hostname string `json:"hostname"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info.Hostname
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

// startRack starts the program that users have, with a configuration for the
// serial number of the node, and waits until it serves.
func startRack(t *testing.T, namespace string, args []string) (*rackService, error) {
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(t.TempDir(), "rack.yaml")
	text := "machines:\n  - name: node-1\n    serial: " + rackSerial + "\n    config: {hostname: " + rackHostname + "}\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	iface := lab.RackInterface
	if err := ip("-n", namespace, "link", "show", "rack"); err == nil {
		iface = "rack"
	}
	cmd := lab.Inside(context.Background(), namespace, filepath.Join(shared.root, "build", "bin", "quantavirt-netboot"),
		append([]string{"--interface", iface, "--tree", imageFile(""), "--ipxe", root.Path("usr", "lib", "ipxe"),
			"--config", config, "--state", t.TempDir(), "--cmdline", netboot.DefaultCmdline + " " + noTimerCheck}, args...)...)
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
