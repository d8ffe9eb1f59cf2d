package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// Options of a demonstration.
type Options struct {
	Out   io.Writer
	Check bool // end when the guest did, and fail unless all went well
}

const (
	vmName    = "demo"
	pageText  = "hello from outside the appliance"
	guestTime = 4 * time.Minute // many times what a guest takes
)

// demo is one demonstration under way.
type demo struct {
	opts  Options
	steps Steps
	root  string
	node  *lab.Node
	files guest.Files
	page  string // URL as the guest sees it
	said  *transcript
}

// Run shows the demonstration until the guest has ended (Check) or ctx ends.
func Run(ctx context.Context, opts Options) error {
	root, err := lab.Root()
	if err != nil {
		return err
	}
	d := &demo{opts: opts, steps: Steps{Out: opts.Out}, root: root, said: &transcript{out: opts.Out}}
	stop, err := d.servePage()
	if err != nil {
		return err
	}
	defer stop()
	defer d.down()
	for _, step := range []func(context.Context) error{d.buildGuest, d.bootNode, d.introduce, d.upload, d.createVM, d.watch} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) down() {
	if d.node != nil {
		_ = d.node.Down()
	}
}

// servePage is the world outside: QEMU's user network shows this machine's
// loopback address to the appliance as 10.0.2.2.
func (d *demo) servePage() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.page = fmt.Sprintf("http://10.0.2.2:%d/", l.Addr().(*net.TCPAddr).Port)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, pageText) })}
	go func() { _ = srv.Serve(l) }()
	return func() { _ = srv.Close() }, nil
}

func (d *demo) command() string { return filepath.Join(d.root, "build", "bin", "quantavirt") }

func (d *demo) buildGuest(ctx context.Context) error {
	return d.steps.Do("Making the demonstration guest: a Debian root file system with Debian's kernel", func(w io.Writer) error {
		tool, err := tools.Ensure(ctx, w)
		if err != nil {
			return err
		}
		cache, err := tools.CacheDir()
		if err != nil {
			return err
		}
		d.files, err = guest.Debian(ctx, tool, cache, filepath.Join(d.root, "build", "guest", "debian"), d.command(), w)
		return err
	})
}

func (d *demo) bootNode(ctx context.Context) error {
	return d.steps.Do("Booting the appliance under QEMU, with a QUAC 100 and a data disk", func(io.Writer) (err error) {
		d.node, err = lab.Up(ctx, lab.Options{Name: "demo", Memory: 3072, DataDisk: 4096, Card: true})
		return err
	})
}

// introduce says how to talk to the node.
func (d *demo) introduce(context.Context) error {
	n := d.node
	fmt.Fprintf(d.opts.Out, `
    The appliance is ready after %.1f s.
      address    %s
      token      %s
      authority  %s
      console    %s

    Try, in another terminal:
      export QUANTAVIRT_HOST=%s QUANTAVIRT_TOKEN=%s QUANTAVIRT_CA=%s
      build/bin/quantavirt system info
      build/bin/quantavirt vm list
      build/bin/quantavirt vm console %s        (Ctrl-] leaves)
      build/bin/quantavirt crypto quac100 status

`, n.BootTime.Seconds(), n.URL, n.Token, n.CA, n.ConsoleLog, n.URL, n.Token, n.CA, vmName)
	return nil
}

// cli runs the quantavirt command against the node and shows it.
func (d *demo) cli(ctx context.Context, progress io.Writer, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.command(), args...)
	cmd.Env = append(os.Environ(), "QUANTAVIRT_HOST="+d.node.URL, "QUANTAVIRT_TOKEN="+d.node.Token, "QUANTAVIRT_CA="+d.node.CA)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(progress, &errOut)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("quantavirt %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.Bytes(), nil
}

func (d *demo) upload(ctx context.Context) error {
	for _, args := range [][]string{
		{"image", "upload", "debian-kernel", "--kind", "kernel", "--file", d.files.Kernel},
		{"image", "upload", "debian-initrd", "--kind", "initrd", "--file", d.files.Initrd},
		{"disk", "upload", "debian", "--file", d.files.Disk},
	} {
		err := d.steps.Do("quantavirt "+strings.Join(args, " "), func(w io.Writer) error {
			_, err := d.cli(ctx, w, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) createVM(ctx context.Context) error {
	cmdline := "console=hvc0 quiet root=/dev/vda rw init=/sbin/demo-init panic=-1 demo.url=" + d.page + " demo.token=" + d.node.Token
	if !d.opts.Check {
		cmdline += " demo.stay"
	}
	config := map[string]any{
		"name": vmName, "description": "the demonstration",
		"cpu": map[string]any{"count": 1}, "memory": map[string]any{"size": "512M"},
		"storage": []any{map[string]any{"disk": "debian"}},
		"network": []any{map[string]any{"network": "default"}},
		"boot":    map[string]any{"firmware": "direct", "kernel": "debian-kernel", "initrd": "debian-initrd", "cmdline": cmdline},
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(d.node.Dir, "vm.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"vm", "create", "--config", file}, {"vm", "start", vmName}} {
		err := d.steps.Do("quantavirt "+strings.Join(args, " "), func(w io.Writer) error {
			_, err := d.cli(ctx, w, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watch shows the guest's console and, in a check, what became of the guest.
func (d *demo) watch(ctx context.Context) error {
	fmt.Fprintf(d.opts.Out, "==> quantavirt vm console %s\n", vmName)
	console, err := d.node.Attach(ctx, vmName)
	if err != nil {
		return err
	}
	defer console.Close()
	limit, cancel := context.WithTimeoutCause(ctx, guestTime, errors.New("the guest took too long"))
	defer cancel()
	last := "demo: powering off"
	if !d.opts.Check {
		last = "demo: a shell"
	}
	for {
		line, err := console.Expect(limit, "")
		if err != nil {
			return err
		}
		d.said.add(line)
		if strings.Contains(line, last) {
			break
		}
	}
	if !d.opts.Check {
		fmt.Fprintf(d.opts.Out, "\n    Up until Ctrl-C. The guest's shell: build/bin/quantavirt vm console %s\n", vmName)
		<-ctx.Done()
		fmt.Fprintln(d.opts.Out, "\n    Going down.")
		return nil
	}
	if err := d.stopped(limit); err != nil {
		return err
	}
	return d.said.check()
}

// stopped waits until the VM is STOPPED.
func (d *demo) stopped(ctx context.Context) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		var vm struct {
			State  string `json:"state"`
			Reason string `json:"reason"`
		}
		if err := d.node.Call(ctx, http.MethodGet, "/api/v1/vms/"+vmName, nil, &vm); err != nil {
			return err
		}
		switch vm.State {
		case "STOPPED":
			fmt.Fprintf(d.opts.Out, "==> quantavirt vm show %s: %s (%s)\n", vmName, vm.State, vm.Reason)
			return nil
		case "CRASHED":
			return fmt.Errorf("the VM crashed: %s", vm.Reason)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the VM is %s: %w", vm.State, context.Cause(ctx))
		}
	}
}

// transcript is what the guest said, shown as it comes.
type transcript struct {
	out   io.Writer
	mu    sync.Mutex
	lines []string
}

func (t *transcript) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	fmt.Fprintf(t.out, "    | %s\n", line)
}

// check holds what the guest said against what it should have.
func (t *transcript) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := strings.Join(t.lines, "\n")
	var missing []error
	for _, want := range []struct{ text, what string }{
		{"demo: Debian", "the guest did not boot"},
		{"demo: address 192.168.200.", "the guest got no address from our DHCP server"},
		{"demo: page: " + pageText, "the guest could not read the page through NAT"},
		{`"kernel"`, "the guest could not ask its host over vsock"},
		{"demo: powering off", "the guest did not power off"},
	} {
		if !strings.Contains(all, want.text) {
			missing = append(missing, fmt.Errorf("%s: its console has no %q", want.what, want.text))
		}
	}
	return errors.Join(missing...)
}
