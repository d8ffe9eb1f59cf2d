package vmm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/block"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// guest is a running VM with its console.
type guest struct {
	t       *testing.T
	spec    vmm.Spec
	process *vmm.Process
	client  *vmm.Client
	console io.ReadWriteCloser
	disk    string
	seen    bytes.Buffer
	rings   map[string]string
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newSpec makes the files of a VM; cmdline is added to the guest's.
func newSpec(t *testing.T, name, cmdline string, vhost bool) *guest {
	t.Helper()
	dir, work := rig(t), t.TempDir()
	warm, err := vmm.KeepWarm()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { warm.Close() })
	g := &guest{t: t, disk: filepath.Join(work, "disk"), rings: map[string]string{}}
	disk := open(t, g.disk, os.O_RDWR|os.O_CREATE)
	if err := disk.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	if err := block.Lock(disk, true); err != nil {
		t.Fatal(err)
	}
	files := map[string]*os.File{
		"kernel": open(t, filepath.Join(dir, "vmlinuz"), os.O_RDONLY),
		"initrd": open(t, filepath.Join(dir, "guest.cpio"), os.O_RDONLY),
		"disk":   disk,
	}
	for _, c := range []string{vmm.ConsoleSerial, vmm.ConsoleVirtio} {
		g.rings[c] = filepath.Join(work, c)
		f, err := ring.Create(g.rings[c], ring.DefaultSize)
		if err != nil {
			t.Fatal(err)
		}
		files[c] = f
	}
	nic := config.NIC{ID: "nic0", TAP: "tap", MAC: "02:51:56:00:00:01", Queues: guestQueues}
	socket := &config.Vsock{CID: 42, Sockets: "vsock"}
	if vhost {
		nic.Vhost = "vhost"
		socket = &config.Vsock{CID: 42, Vhost: "vsock"}
		files["vsock"] = open(t, "/dev/vhost-vsock", os.O_RDWR)
	} else if files["vsock"], err = vmm.ListenVsock(work, name); err != nil {
		t.Fatal(err)
	}
	for _, file := range nic.Vhosts() {
		files[file] = open(t, "/dev/vhost-net", os.O_RDWR)
	}
	for i, tap := range makeTAP(t, "qvt-"+name, guestQueues) {
		files[nic.TAPs()[i]] = tap
	}
	g.spec = vmm.Spec{Binary: filepath.Join(dir, "hv"), Name: name, Files: files, RunDir: work, Log: os.Stderr,
		UID: guestUID, GID: guestUID, Cgroup: filepath.Join(cgroupRoot(t), name), CPUWeight: 50, Grace: 2 * time.Second,
		Machine: config.Machine{UUID: "8d1f0000-0000-4000-8000-000000000001", CPUs: guestCPUs, CPU: config.CPU{Topology: config.Topology{Sockets: 1, Cores: 1, Threads: guestCPUs}}, Memory: guestMemory,
			Boot:  config.Boot{Kernel: "kernel", Initrd: "initrd", Cmdline: "console=ttyS0 quiet panic=-1 mitigations=off " + smallReports + cmdline},
			Disks: []config.Disk{{ID: "disk0", File: "disk", Format: "raw", Serial: "qv-disk-0", Discard: true, Queues: 2}},
			NICs:  []config.NIC{nic}, Balloon: &config.Balloon{}, Ports: []string{portName}, Vsock: socket,
			ConsoleLog: vmm.ConsoleVirtio, SerialLog: vmm.ConsoleSerial}}
	t.Cleanup(func() {
		for _, f := range g.spec.Files {
			f.Close() // those of a VM that was not started
		}
		if t.Failed() {
			serial, _ := ring.Read(g.rings[vmm.ConsoleSerial])
			t.Logf("console:\n%s\nserial:\n%s", g.seen.Bytes(), serial)
		}
	})
	return g
}

func startGuest(t *testing.T, name, cmdline string, vhost bool) *guest {
	t.Helper()
	g := newSpec(t, name, cmdline, vhost)
	g.start()
	return g
}

// start spawns the VM and waits for its init.
func (g *guest) start() {
	g.t.Helper()
	began := time.Now()
	g.spawn()
	g.attach()
	g.expect("GUEST: ready", bootTime)
	g.t.Logf("guest is ready after %v", time.Since(began).Round(time.Millisecond))
}

// spawn starts the process of the VM.
func (g *guest) spawn() {
	g.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(g.t.Context(), bootTime)
	defer cancel()
	p, err := vmm.Spawn(ctx, g.spec)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Logf("spawned in %v", time.Since(began).Round(time.Millisecond))
	g.process, g.client = p, p.Client()
	// From here on only the VM has its files open.
	for _, f := range g.spec.Files {
		f.Close()
	}
	g.t.Cleanup(func() {
		_ = p.Kill()
		<-p.Done()
		if g.t.Failed() {
			g.t.Logf("VM %s: %s", g.spec.Name, g.fate())
		}
	})
}

func (g *guest) attach() {
	g.t.Helper()
	var err error
	if g.console, err = g.client.Console(g.t.Context(), vmm.ConsoleVirtio); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.console.Close() })
}

// expect reads the console up to text and returns what came before it.
func (g *guest) expect(text string, limit time.Duration) string {
	g.t.Helper()
	if d, ok := g.console.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = d.SetReadDeadline(time.Now().Add(limit))
	}
	var got []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(got, []byte(text)) {
		n, err := g.console.Read(one)
		got = append(got, one[:n]...)
		g.seen.Write(one[:n])
		if err != nil {
			g.t.Fatalf("waiting for %q: %v; %s", text, err, g.fate())
		}
	}
	return string(got[:len(got)-len(text)])
}

// fate is what became of the process if it ends soon, else what its vCPUs do.
func (g *guest) fate() string {
	before, statsErr := g.client.Stats(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r, err := g.process.Wait(ctx)
	if err == nil {
		return fmt.Sprintf("%+v", r)
	}
	after, afterErr := g.client.Stats(context.Background())
	text := fmt.Sprintf("%v; vCPUs %+v, %v", err, after.VCPUs, errors.Join(statsErr, afterErr))
	for i, v := range after.VCPUs {
		if i < len(before.VCPUs) && v.CPUUS-before.VCPUs[i].CPUUS > 800_000 {
			text += fmt.Sprintf("; a vCPU spins: %d", v.ID) // qemu-tests knows these words
		}
	}
	return text
}

// ask runs a command in the guest and returns what it prints.
func (g *guest) ask(command string) string {
	g.t.Helper()
	if _, err := fmt.Fprintf(g.console, "%s; echo \"E\"ND $?\n", command); err != nil {
		g.t.Fatal(err)
	}
	out := g.expect("END ", askTime)
	if status := strings.TrimSpace(g.expect("\n", askTime)); status != "0" {
		g.t.Fatalf("%s: status %s: %s", command, status, out)
	}
	return strings.TrimSpace(strings.ReplaceAll(out, "\r", ""))
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) report() vmm.ExitReport {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), askTime)
	defer cancel()
	r, err := g.process.Wait(ctx)
	g.must(err)
	for _, path := range []string{g.spec.Cgroup, vmm.SocketPath(g.spec.RunDir, g.spec.Name), vmm.VsockPath(g.spec.RunDir, g.spec.Name), "/sys/class/net/qvt-" + g.spec.Name} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			g.t.Errorf("%s is left (%v)", path, err)
		}
	}
	if _, err := g.client.Info(g.t.Context()); !errors.Is(err, qverr.NoEnt) {
		g.t.Errorf("info of a VM that is gone: %v", err)
	}
	return r
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("mount cgroup2: %v", err)
		}
	}
	dir := root + "/qvtest"
	_ = os.MkdirAll(dir, 0o755)
	for _, d := range []string{root, dir} {
		if err := os.WriteFile(d+"/cgroup.subtree_control", []byte("+memory +cpu"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// makeTAP makes a TAP with some queues on a bridge with the address 10.9.0.1.
func makeTAP(t *testing.T, name string, queues int) (taps []*os.File) {
	t.Helper()
	if _, err := os.Stat("/sys/class/net/" + bridgeName); err != nil {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := bridgeIoctl(fd, unix.SIOCBRADDBR, 0); err != nil {
			t.Fatalf("bridge: %v", err)
		}
		command(t, "ip", "addr", "add", "10.9.0.1/24", "dev", bridgeName)
		command(t, "ip", "link", "set", bridgeName, "up")
	}
	for range queues {
		taps = append(taps, openTAP(t, name, unix.IFF_MULTI_QUEUE))
	}
	iface, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := bridgeIoctl(sock, unix.SIOCBRADDIF, iface.Index); err != nil {
		t.Fatalf("port of bridge: %v", err)
	}
	command(t, "ip", "link", "set", name, "up")
	return taps
}
