package qemutests

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// env is what all tests of a run share; each part is made at its first use.
type env struct {
	root    string // of the source tree
	outside *outsideServer

	spine func() (*lab.Node, error)
	small func() (guest.Files, error)
}

var shared env // made by TestMain, as testing offers no other place

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	root, err := lab.Root()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := os.Stat(filepath.Join(root, "build", "image", "virtual", "initramfs.zst")); err != nil {
		fmt.Fprintln(os.Stderr, "there is no image to boot: run make image first (make test does it)")
		return 1
	}
	shared.root = root
	if shared.outside, err = startOutside(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.outside.Close()
	shared.small = sync.OnceValues(func() (guest.Files, error) {
		ctx := context.Background()
		tool, err := tools.Ensure(ctx, io.Discard)
		if err != nil {
			return guest.Files{}, err
		}
		return guest.Small(ctx, tool, root, filepath.Join(root, "build", "guest", "small"))
	})
	var spine *lab.Node
	shared.spine = sync.OnceValues(func() (*lab.Node, error) {
		var err error
		spine, err = lab.Up(context.Background(), lab.Options{
			Name: "spine", Memory: 3072, DataDisk: 2048, Card: true, Cmdline: "quantavirt.rescue",
		})
		return spine, err
	})
	defer func() {
		if spine != nil {
			_ = spine.Down()
		}
	}()
	return m.Run()
}

// spine is the shared node; its console is shown when the test fails.
func spine(t *testing.T) *lab.Node {
	t.Helper()
	n, err := shared.spine()
	if err != nil {
		t.Fatal(err)
	}
	showConsole(t, n)
	return n
}

// boot starts a node of the test's own.
func boot(t *testing.T, o lab.Options) *lab.Node {
	t.Helper()
	n, err := lab.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Down() })
	showConsole(t, n)
	t.Logf("%s: API ready %.1f s after QEMU's start", n.Name, n.BootTime.Seconds())
	return n
}

// showConsole prints the end of the console of a failed test.
func showConsole(t *testing.T, n *lab.Node) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the console of %s (%s):\n%s", n.Name, n.ConsoleLog, lab.Tail(n.ConsoleLog, 40))
		}
	})
}

// rounds is how often a test repeats: full under make soak.
func rounds(reduced, full int) int {
	if os.Getenv("QV_SOAK") != "" {
		return full
	}
	return reduced
}

// soaking is true under make soak.
func soaking() bool { return rounds(0, 1) == 1 }

// outsideServer is a page outside the appliance. QEMU's user network shows the
// machine's loopback address as 10.0.2.2.
type outsideServer struct {
	http.Server
	URL string
}

const outsidePage = "a page from outside the appliance"

func startOutside() (*outsideServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &outsideServer{URL: fmt.Sprintf("http://10.0.2.2:%d/", l.Addr().(*net.TCPAddr).Port)}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, outsidePage) })
	s.ReadHeaderTimeout = 10 * time.Second
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// upload sends a file as an image of a kind, unless the node has it.
func upload(t *testing.T, n *lab.Node, id, kind, path string) {
	t.Helper()
	ctx := t.Context()
	if a, err := n.Do(ctx, http.MethodGet, "/api/v1/images/"+id, nil); err == nil && a.Status == http.StatusOK {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := n.Upload(ctx, "/api/v1/images?id="+id+"&kind="+kind, f); err != nil {
		t.Fatal(err)
	}
}

// defineVM makes a VM of the small guest on the default network.
func defineVM(t *testing.T, n *lab.Node, name string, change func(config map[string]any)) {
	t.Helper()
	files, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	upload(t, n, "linux", "kernel", files.Kernel)
	upload(t, n, "agent", "initrd", files.Initrd)
	config := map[string]any{
		"name":    name,
		"memory":  map[string]any{"size": "192M"},
		"network": []any{map[string]any{"network": "default"}},
		"boot": map[string]any{"firmware": "direct", "kernel": "linux", "initrd": "agent",
			"cmdline": "console=hvc0 quiet panic=-1"},
	}
	if change != nil {
		change(config)
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.Call(context.Background(), http.MethodDelete, "/api/v1/vms/"+name+"?force=true&wait=60", nil, nil)
	})
}

// runVM shows that a node, however it came up, does what it is for.
func runVM(t *testing.T, n *lab.Node) {
	t.Helper()
	defineVM(t, n, "proof", nil)
	act(t, n, "proof", "start")
	ready(t, attach(t, n, "proof"))
}

// act runs a life-cycle action and waits for its task.
func act(t *testing.T, n *lab.Node, vm, action string) {
	t.Helper()
	var task struct {
		State string         `json:"state"`
		Error map[string]any `json:"error"`
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms/"+vm+"/"+action+"?wait=120", nil, &task); err != nil {
		t.Fatal(err)
	}
	if task.State != "succeeded" {
		t.Fatalf("%s %s: task %s: %v", action, vm, task.State, task.Error)
	}
}

// vm is what the tests read of a VM.
type vm struct {
	State  string `json:"state"`
	Reason string `json:"reason"`
	PID    int    `json:"pid"`
	NICs   []struct {
		TAP       string   `json:"tap"`
		MAC       string   `json:"mac"`
		Addresses []string `json:"addresses"`
	} `json:"nics"`
	Error *struct {
		Name string `json:"name"`
	} `json:"error"`
}

func getVM(t *testing.T, n *lab.Node, name string) vm {
	t.Helper()
	var v vm
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/vms/"+name, nil, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// waitState asks until the VM has a state. The API has no event stream to wait
// on, so it asks a few times a second.
func waitState(t *testing.T, n *lab.Node, name, state string, limit time.Duration) vm {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		v := getVM(t, n, name)
		if v.State == state {
			return v
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("VM %s is %s (%s) after %s, want %s", name, v.State, v.Reason, limit, state)
		}
	}
}

// attach opens the VM's console and waits for its agent.
func attach(t *testing.T, n *lab.Node, name string) *lab.Console {
	t.Helper()
	c, err := n.Attach(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ready waits until the agent of a VM that has just started says so.
func ready(t *testing.T, c *lab.Console) string { t.Helper(); return readyAgain(t, c, 0) }

// readyAgain is ready for a VM whose console has kept the lines of some starts
// before.
func readyAgain(t *testing.T, c *lab.Console, before int) (line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range before + 1 {
		var err error
		if line, err = c.Expect(ctx, "guest: ready"); err != nil {
			t.Fatal(err)
		}
	}
	return line
}

// starts counts the starts that the console of a VM has kept.
func starts(t *testing.T, n *lab.Node, name string) int {
	t.Helper()
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/"+name+"/console", nil)
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("console of %s: %d %v", name, a.Status, err)
	}
	return strings.Count(string(a.Body), "guest: ready")
}

// ask runs a command of the agent.
func ask(t *testing.T, c *lab.Console, command string) string {
	t.Helper()
	answer, err := c.Run(t.Context(), command)
	if err != nil {
		t.Fatalf("guest: %s: %v", command, err)
	}
	return answer
}

// field takes name=value out of an answer.
func field(answer, name string) string {
	for word := range strings.FieldsSeq(answer) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}
