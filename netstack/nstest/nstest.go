package nstest

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/netstack/rtnl"
)

var update = flag.Bool("update", false, "rewrite golden files")

const envInside = "QV_NSTEST"

// Enter runs the calling top-level test again in a process with its own network
// and mount namespace. It returns true there, where the test goes on, and false
// in the first process, where the test has to return. Without root it skips.
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envInside) == t.Name() {
		prepare(t)
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.count=1", "-test.v"}
	if *update {
		args = append(args, "-update")
	}
	if dl, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(dl).String())
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envInside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("in its namespace: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" (")):
		t.Skipf("in its namespace:\n%s", out)
	default:
		t.Logf("in its namespace:\n%s", out)
	}
	return false
}

func prepare(t *testing.T) {
	t.Helper()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// /sys shows the network namespace it was mounted in.
	must(t, unix.Mount("sysfs", "/sys", "sysfs", 0, ""))
	lo, err := rtnl.Link("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
}

// NS is another network namespace: a guest or the world outside.
type NS struct {
	Name  string
	fd    int
	calls chan func()
}

// New makes a namespace with its loopback up. It goes away with the test.
func New(t *testing.T, name string) *NS {
	t.Helper()
	n := &NS{Name: name, calls: make(chan func())}
	ready := make(chan error)
	go n.serve(ready)
	err := <-ready
	must(t, err)
	t.Cleanup(func() { close(n.calls); unix.Close(n.fd) })
	n.Do(func() {
		var lo netlink.Link
		if lo, err = rtnl.Link("lo"); err == nil {
			err = netlink.LinkSetUp(lo)
		}
	})
	must(t, err)
	return n
}

// serve keeps a thread in the namespace; it is never unlocked, so it ends with
// the goroutine.
func (n *NS) serve(ready chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		n.fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	ready <- err
	if err != nil {
		return
	}
	for fn := range n.calls {
		fn()
	}
}

// Do runs fn in the namespace. Sockets that fn opens and processes that it
// starts belong to it; goroutines that it starts do not. fn must not call
// t.Fatal.
func (n *NS) Do(fn func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); fn() }
	<-done
}

// Run runs a command in the namespace and returns what it printed.
func (n *NS) Run(t *testing.T, args ...string) string {
	t.Helper()
	var out []byte
	var err error
	n.Do(func() { out, err = exec.Command(args[0], args[1:]...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", n.Name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Try is Run for a command that may fail.
func (n *NS) Try(args ...string) (string, error) {
	var out []byte
	var err error
	n.Do(func() { out, err = exec.Command(args[0], args[1:]...).CombinedOutput() })
	return string(out), err
}

// Run runs a command in the test's own namespace.
func Run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Veth makes a cable: one end here, up, the other in n, up with addr unless
// that is zero.
func Veth(t *testing.T, here string, n *NS, there string, addr netip.Prefix) {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name = here
	tmp := "p" + here
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: tmp}))
	peer, err := rtnl.Link(tmp)
	must(t, err)
	must(t, netlink.LinkSetNsFd(peer, n.fd))
	l, err := rtnl.Link(here)
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	n.Do(func() { err = plug(tmp, there, addr) })
	must(t, err)
}

// plug names and configures the far end of a cable.
func plug(tmp, name string, addr netip.Prefix) error {
	l, err := rtnl.Link(tmp)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetName(l, name); err != nil {
		return err
	}
	if addr.IsValid() {
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: rtnl.IPNet(addr)}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// Golden compares text with a file below testdata; -update writes it.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if string(want) != got {
		t.Errorf("%s differs (go test -update rewrites it)\n--- got ---\n%s\n--- want ---\n%s", path, got, want)
	}
}

// Need skips the test when a program is not installed.
func Need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s", program)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
