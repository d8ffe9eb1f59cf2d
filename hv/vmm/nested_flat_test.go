package vmm_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// rounds is the number of repetitions: the full one with QV_SOAK.
func rounds(reduced, full int) int {
	if soaking() {
		return full
	}
	return reduced
}

func soaking() bool { return os.Getenv("QV_SOAK") != "" }

const flatMemory = 32 << 20

// flatVM is a VM with a flat kernel, a NIC in the process and, if its number is not 0,
// one in the kernel and vsock.
type flatVM struct {
	t       *testing.T
	spec    vmm.Spec
	process *vmm.Process
	log     string
}

// newFlat makes the files of a VM. number makes its TAPs and context id its own.
func newFlat(t *testing.T, name string, kernel []byte, number int) *flatVM {
	t.Helper()
	dir, work := rig(t), t.TempDir()
	path := filepath.Join(work, "kernel")
	if err := os.WriteFile(path, kernel, 0o600); err != nil {
		t.Fatal(err)
	}
	v := &flatVM{t: t, log: filepath.Join(work, "hv.log")}
	files := map[string]*os.File{"kernel": open(t, path, os.O_RDONLY), "tap": openTAP(t, fmt.Sprintf("qvf%d", number), 0)}
	m := config.Machine{UUID: "8d1f0000-0000-4000-8000-000000000002", CPUs: 1, Memory: flatMemory, Boot: config.Boot{Kernel: "kernel"},
		NICs: []config.NIC{{ID: "nic0", TAP: "tap", MAC: "02:51:56:00:00:02"}}}
	if number != 0 {
		files["tap1"], files["vhost"] = openTAP(t, fmt.Sprintf("qvk%d", number), 0), open(t, "/dev/vhost-net", os.O_RDWR)
		files["vsock"] = open(t, "/dev/vhost-vsock", os.O_RDWR)
		m.NICs = append(m.NICs, config.NIC{ID: "nic1", TAP: "tap1", MAC: "02:51:56:00:00:03", Vhost: "vhost"})
		m.Vsock = &config.Vsock{CID: uint32(1000 + number), Vhost: "vsock"}
	}
	log := open(t, v.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	v.spec = vmm.Spec{Binary: filepath.Join(dir, "hv"), Name: name, Files: files, RunDir: work, Log: log,
		UID: guestUID, GID: guestUID, Cgroup: filepath.Join(cgroupRoot(t), name), Machine: m}
	return v
}

// close closes the files that the VM has copies of.
func (v *flatVM) close() {
	for _, f := range v.spec.Files {
		f.Close()
	}
	v.spec.Log.Close()
}

// spawn starts the VM; only it has its files open then.
func (v *flatVM) spawn(ctx context.Context) error {
	defer v.close()
	p, err := vmm.Spawn(ctx, v.spec)
	v.process = p
	return err
}

func startFlat(t *testing.T, name string, kernel []byte, number int) *flatVM {
	t.Helper()
	v := newFlat(t, name, kernel, number)
	ctx, cancel := context.WithTimeout(t.Context(), askTime)
	defer cancel()
	if err := v.spawn(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.process.Kill()
		<-v.process.Done()
		if t.Failed() {
			log, _ := os.ReadFile(v.log)
			t.Logf("log of %s:\n%s", name, log)
		}
	})
	return v
}

// expect reads COM1 until a line ends with text.
func (v *flatVM) expect(text string) {
	v.t.Helper()
	conn, err := v.process.Client().Console(v.t.Context(), vmm.ConsoleSerial)
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(askTime))
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if strings.HasSuffix(line, text+"\n") {
			return
		}
		if err != nil {
			v.t.Fatalf("waiting for %q: %v after %q", text, err, line)
		}
	}
}

// echo types text on COM1 of an Echo kernel and waits until it comes back.
func (v *flatVM) echo(text string) error {
	conn, err := v.process.Client().Console(v.t.Context(), vmm.ConsoleSerial)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(askTime))
	if _, err := fmt.Fprintln(conn, text); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if strings.HasSuffix(line, text+"\n") || err != nil {
			return err
		}
	}
}

func (v *flatVM) device(id string) vmm.Device {
	v.t.Helper()
	info, err := v.process.Client().Info(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	for _, d := range info.Devices {
		if d.ID == id {
			return d
		}
	}
	v.t.Fatalf("no device %s", id)
	return vmm.Device{}
}

func (v *flatVM) wait() vmm.ExitReport {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), askTime)
	defer cancel()
	r, err := v.process.Wait(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	return r
}

// openTAP makes a TAP that is connected with nothing, or another queue of one.
func openTAP(t *testing.T, name string, flags uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("TAP %s: %v", name, err)
	}
	return os.NewFile(uintptr(fd), name)
}

// resources are what VMs take of a node.
type resources struct {
	descriptors, goroutines, taps, cgroups, memfds, processes, hugepages int
}

// count looks at the node and at this process.
func count(t *testing.T) resources {
	t.Helper()
	list := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	r := resources{descriptors: list("/proc/self/fd"), goroutines: runtime.NumGoroutine(), taps: list("/sys/class/net")}
	groups, err := filepath.Glob(cgroupRoot(t) + "/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	r.cgroups = len(groups)
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		comm, _ := os.ReadFile(p + "/comm")
		if strings.TrimSpace(string(comm)) == "hv" {
			r.processes++ // with its threads, those of vhost among them
		}
		fds, _ := os.ReadDir(p + "/fd")
		for _, f := range fds {
			if target, _ := os.Readlink(p + "/fd/" + f.Name()); strings.HasPrefix(target, "/memfd:") {
				r.memfds++
			}
		}
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(meminfo)) {
		_, _ = fmt.Sscanf(line, "HugePages_Free: %d", &r.hugepages)
	}
	return r
}

// expectCount waits until the node has as much in use as before: the runtime's
// goroutines and the kernel's threads end a moment after what they served.
func expectCount(t *testing.T, want resources) {
	t.Helper()
	await(t, want, func(r resources) resources {
		// One that was about to end when it was counted before is no loss.
		r.goroutines = max(r.goroutines, want.goroutines)
		return r
	})
}

// expectNode does so for what is not of this process, but of the node.
func expectNode(t *testing.T, want resources) {
	t.Helper()
	await(t, want, func(r resources) resources {
		r.descriptors, r.goroutines = want.descriptors, want.goroutines
		return r
	})
}

func await(t *testing.T, want resources, of func(resources) resources) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		now := of(count(t))
		if now == want {
			return
		}
		select {
		case <-limit:
			t.Fatalf("want: %+v\nhave: %+v", want, now)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// gone checks that nothing of a VM is left in the file system.
func (v *flatVM) gone() {
	v.t.Helper()
	for _, path := range []string{v.spec.Cgroup, vmm.SocketPath(v.spec.RunDir, v.spec.Name)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			v.t.Errorf("%s is left (%v)", path, err)
		}
	}
	if _, err := vmm.NewClient(vmm.SocketPath(v.spec.RunDir, v.spec.Name)).Info(v.t.Context()); !errors.Is(err, qverr.NoEnt) {
		v.t.Errorf("info of a VM that is gone: %v", err)
	}
}
