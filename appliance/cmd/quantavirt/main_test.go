package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
)

// The test binary is the program under test when this is set.
const asMain = "QUANTAVIRT_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = []string{asMain + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	return cmd
}

// lab is a daemon on this host: without PID 1, network and KVM.
type lab struct {
	dir    string
	env    []string
	daemon *exec.Cmd
	stderr *lockedBuffer
	all    *testing.T // the test that the daemon lives as long as
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startLab(t *testing.T) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "qv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{dir: dir, stderr: &lockedBuffer{}, all: t}
	l.env = []string{"QUANTAVIRT_HOST=unix://" + filepath.Join(dir, "run", "api.sock")}
	l.start(t)
	return l
}

func (l *lab) start(t *testing.T) {
	t.Helper()
	l.daemon = program(l.all, "daemon", "--data-dir", filepath.Join(l.dir, "data"), "--run-dir", filepath.Join(l.dir, "run"),
		"--listen", "127.0.0.1:0", "--vsock-port", "0", "--no-init", "--no-network", "--cgroup", filepath.Join(l.dir, "no-cgroup"))
	out, err := l.daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.daemon.Stderr = l.stderr
	if err := l.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	process := l.daemon.Process
	l.all.Cleanup(func() { _ = process.Kill() })
	// The banner says that the API is ready.
	var seen strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), "quantavirt: ready ") {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("the daemon ended: %v\n%s%s", err, seen.String(), l.stderr)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

func (l *lab) stop(t *testing.T) {
	t.Helper()
	if err := l.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := l.daemon.Wait(); err != nil {
		t.Errorf("the daemon: %v\n%s", err, l.stderr)
	}
}

type result struct {
	exit     int
	out, err string
}

func (l *lab) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return runWith(t, l.env, stdin, args...)
}

func runWith(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	cmd := program(t, args...)
	cmd.Env = append(cmd.Env, env...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// must runs a command that has to work and decodes its JSON into v.
func (l *lab) must(t *testing.T, v any, args ...string) {
	t.Helper()
	r := l.run(t, "", append(args, "-o", "json", "-q")...)
	if r.exit != 0 || r.err != "" {
		t.Fatalf("%v: exit %d, %s", args, r.exit, r.err)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, r.out)
	}
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bzImage is as much of a kernel as the node looks at.
func bzImage() []byte {
	data := make([]byte, 64<<10)
	le := binary.LittleEndian
	data[0x1f1] = 1 // one sector of setup after the first
	le.PutUint32(data[0x1f4:], uint32(len(data)-1024)/16)
	copy(data[0x1fe:], "\x55\xaa")
	copy(data[0x202:], "HdrS")
	le.PutUint16(data[0x206:], 0x020f)
	data[0x211] = 1                     // loaded high
	le.PutUint16(data[0x236:], 1)       // 64-bit entry
	le.PutUint64(data[0x258:], 1<<24)   // preferred address
	le.PutUint32(data[0x260:], 256<<10) // memory to unpack in
	return data
}

const vmConfig = `{"name": %q, "memory": {"size": "64M"}, "boot": {"firmware": "direct", "kernel": "linux", "cmdline": "quiet"}, "storage": [{"disk": "root"}]}`

func TestAgainstTheDaemon(t *testing.T) {
	l := startLab(t)
	t.Run("nothing yet", func(t *testing.T) {
		var vms spec.VMList
		l.must(t, &vms, "vm", "list")
		if len(vms.Items) != 0 {
			t.Errorf("%v", vms)
		}
	})
	t.Run("images and disks", l.testStorage)
	t.Run("VM definitions", l.testVMs)
	t.Run("bad input", l.testBadInput)
	t.Run("network transport", l.testNetwork)
	t.Run("every view", l.testViews)
	t.Run("restart", func(t *testing.T) {
		l.stop(t)
		if r := l.run(t, "", "vm", "list"); r.exit != 12 {
			t.Errorf("no daemon: %+v", r)
		}
		l.start(t)
		var vm spec.VM
		l.must(t, &vm, "vm", "show", "web")
		if vm.Config.CPU.Count != 2 {
			t.Errorf("after a restart: %+v", vm)
		}
	})
	t.Run("away with it", func(t *testing.T) {
		if r := l.run(t, "", "disk", "delete", "root"); r.exit != 5 {
			t.Errorf("a disk in use: %+v", r)
		}
		l.must(t, nil, "vm", "destroy", "web")
		l.must(t, nil, "disk", "delete", "root")
		l.must(t, nil, "image", "delete", "linux")
		if r := l.run(t, "", "vm", "show", "web"); r.exit != 3 {
			t.Errorf("destroyed: %+v", r)
		}
	})
	l.stop(t)
}

func (l *lab) testStorage(t *testing.T) {
	l.must(t, nil, "image", "upload", "linux", "--file", writeFile(t, bzImage()))
	var image spec.Image
	l.must(t, &image, "image", "show", "linux")
	if image.Kind != spec.ImageKindKernel || image.SizeBytes != 64<<10 {
		t.Errorf("%+v", image)
	}
	data := bytes.Repeat([]byte("block"), 1<<18)
	l.must(t, nil, "disk", "upload", "root", "--file", writeFile(t, data), "--size", "4M")
	var disk spec.Disk
	l.must(t, &disk, "storage", "info", "root")
	if disk.SizeBytes != 4<<20 || len(disk.Sha256) != 64 {
		t.Errorf("%+v", disk)
	}
	l.must(t, nil, "storage", "create", "--name", "empty", "--format", "raw", "--size", "1M")
	l.must(t, nil, "disk", "delete", "empty")
	var disks spec.DiskList
	l.must(t, &disks, "disk", "list")
	if len(disks.Items) != 1 {
		t.Errorf("%+v", disks)
	}
}

func (l *lab) testVMs(t *testing.T) {
	file := writeFile(t, fmt.Appendf(nil, vmConfig, "web"))
	if r := l.run(t, "", "vm", "validate", "--config", file); r.exit != 0 || r.out != "valid: VM web\n" {
		t.Errorf("validate: %+v", r)
	}
	if r := l.run(t, "", "vm", "create", "--config", file); r.exit != 0 || r.out != "VM web: CREATED\n" {
		t.Fatalf("create: %+v", r)
	}
	l.must(t, nil, "vm", "set", "web", "cpu.count=2", "description=the web")
	var vm spec.VM
	l.must(t, &vm, "vm", "show", "web")
	if vm.Config.CPU.Count != 2 || vm.Config.Description != "the web" || vm.State != spec.VMStateCREATED {
		t.Errorf("%+v", vm)
	}
	exported := filepath.Join(t.TempDir(), "web.json")
	if r := l.run(t, "", "vm", "export", "web", "--output", exported); r.exit != 0 {
		t.Errorf("export: %+v", r)
	}
	again := l.run(t, "", "vm", "create", "--config", exported)
	if again.exit != 5 || !strings.Contains(again.err, "QV_ERR_EXIST (-7)") {
		t.Errorf("the same name again: %+v", again)
	}
	if r := l.run(t, "", "vm", "pause", "web"); r.exit != 5 || !strings.Contains(r.err, "QV_ERR_STATE (-16)") {
		t.Errorf("pause of a VM that does not run: %+v", r)
	}
}

func (l *lab) testBadInput(t *testing.T) {
	config := func(replace ...string) string {
		return strings.NewReplacer(replace...).Replace(fmt.Sprintf(vmConfig, "bad"))
	}
	for name, c := range map[string]struct {
		stdin string
		args  []string
		code  string
		exit  int
	}{
		"unknown key":          {config(`"boot"`, `"boots": 1, "boot"`), []string{"vm", "create", "--config", "-"}, "QV_ERR_CONFIG (-17)", 2},
		"broken JSON":          {`{"name": `, []string{"vm", "create", "--config", "-"}, "QV_ERR_CONFIG (-17)", 2},
		"long name":            {config(`"bad"`, `"`+strings.Repeat("x", 4097)+`"`), []string{"vm", "create", "--config", "-"}, "QV_ERR_CONFIG (-17)", 2},
		"negative memory":      {config(`"64M"`, `-1`), []string{"vm", "create", "--config", "-"}, "QV_ERR_CONFIG (-17)", 2},
		"no such disk":         {config(`"root"`, `"nodisk"`), []string{"vm", "create", "--config", "-"}, "QV_ERR_NOENT (-6)", 3},
		"large body":           {strings.Repeat(" ", 2<<20), []string{"vm", "create", "--config", "-"}, "QV_ERR_INVAL (-5)", 2},
		"firmware":             {config(`"direct"`, `"ovmf"`), []string{"vm", "create", "--config", "-"}, "QV_ERR_UNSUPPORTED (-15)", 125},
		"no such VM":           {"", []string{"vm", "start", "nobody"}, "QV_ERR_NOENT (-6)", 3},
		"no such route":        {"", []string{"api", "GET", "/nothing"}, "QV_ERR_NOENT (-6)", 3},
		"wrong method":         {"", []string{"api", "PUT", "/vms"}, "QV_ERR_INVAL (-5)", 2},
		"no kernel":            {"", []string{"image", "upload", "k", "--kind", "kernel", "--file", writeFile(t, []byte("no kernel"))}, "QV_ERR_INVAL (-5)", 2},
		"larger than the disk": {"", []string{"disk", "create", "huge", "--size", "9000000T"}, "QV_ERR_", 0},
		"qcow2":                {"", []string{"disk", "create", "q", "--size", "1M", "--format", "qcow2"}, "QV_ERR_UNSUPPORTED (-15)", 125},
		"disk name":            {"", []string{"disk", "create", "../x", "--size", "1M"}, "QV_ERR_", 2},
	} {
		r := l.run(t, c.stdin, append(c.args, "-q")...)
		if !strings.Contains(r.err, "Error: "+c.code) || c.exit != 0 && r.exit != c.exit || r.exit == 0 {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.err)
		}
	}
	var vms spec.VMList
	var images spec.ImageList
	var disks spec.DiskList
	l.must(t, &vms, "vm", "list")
	l.must(t, &images, "image", "list")
	l.must(t, &disks, "disk", "list")
	if len(vms.Items) != 1 || len(images.Items) != 1 || len(disks.Items) != 1 {
		t.Errorf("bad input left something behind: %d VMs, %d images, %d disks", len(vms.Items), len(images.Items), len(disks.Items))
	}
}

// testNetwork reaches the same daemon over TLS.
func (l *lab) testNetwork(t *testing.T) {
	addr := regexp.MustCompile(`tcp (127\.0\.0\.1:\d+)`).FindStringSubmatch(l.stderr.String())
	if addr == nil {
		t.Fatalf("no address in the log:\n%s", l.stderr)
	}
	var info spec.SystemInfo
	l.must(t, &info, "system", "info")
	var secret spec.TokenSecret
	l.must(t, &secret, "system", "token", "create", "--description", "test")
	host, pin := "QUANTAVIRT_HOST=https://"+addr[1], "QUANTAVIRT_CA="+info.TLS.CaFingerprint
	if r := runWith(t, []string{host, pin, "QUANTAVIRT_TOKEN=" + secret.Token}, "", "vm", "list"); r.exit != 0 {
		t.Errorf("with token and pin: %+v", r)
	}
	for name, env := range map[string][]string{
		"no token":    {host, pin},
		"wrong token": {host, pin, "QUANTAVIRT_TOKEN=qv_wrong"},
		"no pin":      {host, "QUANTAVIRT_TOKEN=" + secret.Token},
	} {
		if r := runWith(t, env, "", "vm", "list"); r.exit != 4 || !strings.Contains(r.err, "QV_ERR_AUTH (-19)") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	var viewer spec.TokenSecret
	l.must(t, &viewer, "system", "token", "create", "--role", "viewer", "--expires-in", "1h")
	if r := runWith(t, []string{host, pin, "QUANTAVIRT_TOKEN=" + viewer.Token}, "", "vm", "destroy", "web"); r.exit != 4 || !strings.Contains(r.err, "QV_ERR_PERM (-9)") {
		t.Errorf("viewer: %+v", r)
	}
	l.must(t, nil, "system", "token", "delete", secret.Info.ID)
	if r := runWith(t, []string{host, pin, "QUANTAVIRT_TOKEN=" + secret.Token}, "", "vm", "list"); r.exit != 4 {
		t.Errorf("revoked: %+v", r)
	}
	cut(t, addr[1])
}

// cut: a client that goes away while it shakes hands must not hurt.
func cut(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("\x16\x03\x01"))
	conn.Close()
}

// testViews runs every command that only looks, in all forms.
func (l *lab) testViews(t *testing.T) {
	for _, args := range [][]string{
		{"system", "info"}, {"system", "capabilities"}, {"system", "token", "list"}, {"network", "list"}, {"network", "show", "default"},
		{"network", "leases", "default"}, {"image", "list"}, {"disk", "list"}, {"vm", "list"}, {"vm", "show", "web"}, {"task", "list"},
		{"crypto", "qrng", "status"}, {"version"},
	} {
		for _, form := range []string{"table", "json", "yaml"} {
			if r := l.run(t, "", append(args, "-o", form)...); r.exit != 0 || r.out == "" || r.err != "" {
				t.Errorf("%v -o %s: %+v", args, form, r)
			}
		}
	}
	if r := l.run(t, "", "crypto", "quac100", "status"); r.exit != 6 && r.exit != 0 {
		t.Errorf("quac100 status: %+v", r)
	}
	if r := l.run(t, "", "api", "GET", "/readyz"); r.exit != 0 || !strings.Contains(r.out, `"ok"`) {
		t.Errorf("readyz: %+v", r)
	}
}
