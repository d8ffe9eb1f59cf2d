package vmm_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/flat"
	"quantavirt/internal/qverr"
)

// These tests run real guests. They need KVM, root, the modules vhost_net,
// vhost_vsock, tun and bridge, and in the directory that QUANTAVIRT_NESTED names:
// hv, vmlinuz and guest.cpio, whose init is testdata/guest/init.
func rig(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("QUANTAVIRT_NESTED")
	if dir == "" {
		t.Skip("QUANTAVIRT_NESTED does not name a directory with hv, vmlinuz and guest.cpio")
	}
	return dir
}

const (
	guestMemory = 128 << 20
	guestCPUs   = 2
	diskSize    = 32 << 20
	guestUID    = 4242
	bootTime    = 90 * time.Second
	askTime     = 40 * time.Second
	fioTime     = 5 * time.Minute
	vsockPort   = 5000
	bridgeName  = "qvtest0"
)

// TestGuest takes one guest through its life.
func TestGuest(t *testing.T) {
	g := startGuest(t, "life", "", true)
	t.Run("info", g.testInfo)
	t.Run("firmware", g.testFirmware)
	t.Run("memory", g.testOverhead)
	t.Run("disk", g.testDisk)
	t.Run("network", g.testNetwork)
	t.Run("rng", g.testRNG)
	t.Run("vsock", g.testVsock)
	t.Run("streams", g.testStreams)
	t.Run("link", g.testLink)
	t.Run("balloon", g.testBalloon)
	t.Run("port", g.testPort)
	t.Run("pause", g.testPause)
	t.Run("serial", g.testSerial)
	t.Run("bad neighbours", g.testBadNeighbours)
	t.Run("adopt", g.testAdopt)
	t.Run("reset", g.testReset)
	t.Run("reboot", g.testReboot)
	t.Run("power button", g.testPowerButton)
}

func (g *guest) testInfo(t *testing.T) {
	g.t = t
	info, err := g.client.Info(t.Context())
	g.must(err)
	if info.State != vmm.StateRunning || info.CID != 42 || info.CPUs != guestCPUs || info.Memory != guestMemory || info.Started.IsZero() {
		t.Errorf("%+v", info)
	}
	for _, d := range info.Devices {
		t.Logf("%+v", d)
		if !d.Ready {
			t.Errorf("%s is not ready", d.ID)
		}
	}
	if len(info.Devices) != 6 {
		t.Errorf("%d devices", len(info.Devices))
	}
	for _, err := range []error{g.client.Resume(t.Context()), func() error { _, err := vmm.Spawn(t.Context(), g.spec); return err }()} {
		if code := qverr.CodeOf(err); code != qverr.State && code != qverr.Exist {
			t.Errorf("%v", err)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.PID))
	g.must(err)
	for _, want := range []string{`Uid:\s+4242\s+4242\s+4242\s+4242`, `Gid:\s+4242\s`, `Groups:\s*\n`, `NoNewPrivs:\s+1`, `CapEff:\s+0+\n`, `NSpid:\s+\d+\s+1\n`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("status lacks %s", want)
		}
	}
	if root, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", g.process.PID)); err != nil || len(root) != 0 {
		t.Errorf("root holds %v (%v)", root, err)
	}
	max, err := os.ReadFile(g.spec.Cgroup + "/memory.max")
	g.must(err)
	if want := fmt.Sprint(vmm.MemoryLimit(guestMemory)); strings.TrimSpace(string(max)) != want {
		t.Errorf("memory.max %s, want %s", max, want)
	}
}

// testFirmware asks what Linux makes of CPUID and of the ACPI tables.
func (g *guest) testFirmware(t *testing.T) {
	g.t = t
	for _, c := range []struct{ command, want string }{
		{"cat /sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1"},
		{"ls /sys/bus/platform/drivers/vmgenid | grep -c :", "1"},
		{"dmesg | grep -iE 'acpi.*(error|warning)|firmware bug|unknown nmi' || true", ""},
	} {
		if got := g.ask(c.command); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
}

// testOverhead measures what the process needs beside guest RAM.
func (g *guest) testOverhead(t *testing.T) {
	g.t = t
	h, err := g.process.Host()
	g.must(err)
	t.Logf("PSS beside guest RAM: %d kB (guest RAM %d kB), %+v", h.Beyond()>>10, h.GuestPSS>>10, h)
	if h.Beyond() > 8<<20 || h.Beyond() < 1<<20 || h.GuestPSS < 16<<20 || len(h.Steal) != guestCPUs {
		t.Errorf("%+v", h)
	}
	if kib := g.hugeKiB(); kib < 16<<10 {
		t.Errorf("%d kB of guest RAM in huge pages", kib)
	}
	stats, err := g.client.Stats(t.Context())
	g.must(err)
	t.Logf("%+v", stats)
	for _, v := range stats.VCPUs {
		if v.Reasons["io"] != v.IO || v.Reasons["mmio"] != v.MMIO || v.Exits < v.IO+v.MMIO {
			t.Errorf("%+v", v)
		}
	}
}

// hugeKiB is how much of the VM process is mapped by huge pages of shared memory.
func (g *guest) hugeKiB() int {
	g.t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", g.process.PID))
	g.must(err)
	total := 0
	for line := range strings.Lines(string(smaps)) {
		if n, ok := strings.CutPrefix(line, "ShmemPmdMapped:"); ok {
			kib, err := strconv.Atoi(strings.Fields(n)[0])
			g.must(err)
			total += kib
		}
	}
	return total
}

func (g *guest) testDisk(t *testing.T) {
	g.t = t
	sum := strings.Fields(g.ask("dd if=/dev/urandom of=/tmp/r bs=1M count=6 2>/dev/null && dd if=/tmp/r of=/dev/vda bs=64k seek=16 conv=fsync 2>/dev/null && md5sum /tmp/r"))[0]
	data, err := os.ReadFile(g.disk)
	g.must(err)
	onHost := md5.Sum(data[1<<20 : 7<<20])
	if hex.EncodeToString(onHost[:]) != sum {
		t.Errorf("the file has %x, the guest wrote %s", onHost, sum)
	}
	again := strings.Fields(g.ask("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k skip=16 count=96 2>/dev/null | md5sum"))[0]
	if again != sum {
		t.Errorf("read back %s, wrote %s", again, sum)
	}
	if s := g.ask("cat /sys/block/vda/serial /sys/block/vda/size /sys/block/vda/queue/write_cache; ls /sys/block/vda/mq | wc -l"); s != "qv-disk-065536\nwrite back\n2" {
		t.Errorf("%q", s)
	}
	g.ask("mke2fs -q /dev/vda 2>/dev/null >/dev/null; mount -t ext4 /dev/vda /mnt 2>/dev/null || { mkdir -p /mnt; mount -t ext4 /dev/vda /mnt; }; echo persistent >/mnt/file; sync")
	g.ask("busybox fstrim /mnt; umount /mnt")
	stats, err := g.client.Stats(t.Context())
	g.must(err)
	t.Logf("%+v", stats.Disks)
	if d := stats.Disks[0]; d.WriteBytes < 6<<20 || d.ReadBytes < 6<<20 || d.Flushes == 0 || d.Errors != 0 || d.Discards == 0 {
		t.Errorf("%+v", d)
	}
}

func (g *guest) testNetwork(t *testing.T) {
	g.t = t
	g.ask("ip addr add 10.9.0.2/24 dev eth0 2>/dev/null; ip link set eth0 up")
	out := g.ask("ping -c 3 -W 5 10.9.0.1")
	if !strings.Contains(out, "3 packets received") {
		t.Errorf("%s", out)
	}
	// A stream with segments larger than a packet.
	l, err := net.Listen("tcp", "10.9.0.1:0")
	g.must(err)
	defer l.Close()
	sums := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			sums <- err.Error()
			return
		}
		h := md5.New()
		_, _ = io.Copy(h, conn)
		conn.Close()
		sums <- hex.EncodeToString(h.Sum(nil))
	}()
	port := l.Addr().(*net.TCPAddr).Port
	sum := strings.Fields(g.ask(fmt.Sprintf("dd if=/dev/urandom of=/tmp/n bs=1M count=4 2>/dev/null; nc 10.9.0.1 %d </tmp/n; md5sum /tmp/n", port)))[0]
	if got := <-sums; got != sum {
		t.Errorf("sent %s, received %s", sum, got)
	}
}

func (g *guest) testRNG(t *testing.T) {
	g.t = t
	if s := g.ask("cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2>/dev/null | wc -c"); !strings.HasPrefix(s, "virtio_rng") || !strings.HasSuffix(s, "256") {
		t.Errorf("%q", s)
	}
}

func (g *guest) testVsock(t *testing.T) {
	g.t = t
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	g.must(err)
	defer unix.Close(fd)
	g.must(unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: vsockPort}))
	g.must(unix.Listen(fd, 1))
	failed := make(chan error, 1)
	go func() { failed <- answerVsock(fd) }()
	if s := g.ask(fmt.Sprintf("/bin/guesttool vsock %d ping", vsockPort)); s != "42 says ping" {
		t.Errorf("%q", s)
	}
	g.must(<-failed)
}

func answerVsock(fd int) error {
	conn, from, err := unix.Accept(fd)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	buf := make([]byte, 100)
	n, err := unix.Read(conn, buf)
	if err != nil {
		return err
	}
	_, err = unix.Write(conn, fmt.Appendf(nil, "%d says %s", from.(*unix.SockaddrVM).CID, bytes.TrimSpace(buf[:n])))
	return err
}

func (g *guest) testPause(t *testing.T) {
	g.t = t
	ctx := t.Context()
	g.ask("(while :; do echo tick; sleep 0.1; done) >/dev/ttyS0 & echo $! >/tmp/ticker")
	waiting := make(chan vmm.Info, 1)
	go func() {
		info, _ := g.client.Wait(ctx, vmm.StateRunning)
		waiting <- info
	}()
	g.must(g.client.Pause(ctx))
	if info := <-waiting; info.State != vmm.StatePaused {
		t.Errorf("wait: %+v", info)
	}
	before, err := g.client.Stats(ctx)
	g.must(err)
	// Nothing may move: what is typed and what the network brings waits.
	if _, err := io.WriteString(g.console, "echo typed\n"); err != nil {
		t.Fatal(err)
	}
	<-time.After(700 * time.Millisecond)
	after, err := g.client.Stats(ctx)
	g.must(err)
	if after.State != vmm.StatePaused || after.VCPUs[0].Exits != before.VCPUs[0].Exits || after.VCPUs[0].CPUUS-before.VCPUs[0].CPUUS > 10_000 {
		t.Errorf("before %+v, after %+v", before.VCPUs, after.VCPUs)
	}
	for _, a := range []func(context.Context) error{g.client.Pause, g.client.PowerButton} {
		if err := a(ctx); !errors.Is(err, qverr.State) {
			t.Errorf("action on a paused VM: %v", err)
		}
	}
	g.must(g.client.Resume(ctx))
	g.expect("typed", askTime)
	g.ask("kill $(cat /tmp/ticker)")
	if out := g.ask("ping -c 2 -W 5 10.9.0.1 && dd if=/dev/vda bs=64k count=16 2>/dev/null | wc -c"); !strings.HasSuffix(out, "1048576") {
		t.Errorf("after resume: %s", out)
	}
}

func (g *guest) testSerial(t *testing.T) {
	g.t = t
	kept, err := ring.Read(g.rings[vmm.ConsoleSerial])
	g.must(err)
	if !bytes.Contains(kept, []byte("GUEST: on the serial port")) || !bytes.Contains(kept, []byte("tick")) {
		t.Errorf("serial ring: %q", kept)
	}
	conn, err := g.client.Console(t.Context(), vmm.ConsoleSerial)
	g.must(err)
	defer conn.Close()
	// The replay comes first.
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil || !bytes.HasPrefix(kept, buf[:n]) {
		t.Errorf("replay %q (%v)", buf[:n], err)
	}
	_, err = io.WriteString(conn, "hello over serial\n")
	g.must(err)
	if s := g.ask("head -n 1 </dev/ttyS0"); s != "hello over serial" {
		t.Errorf("%q", s)
	}
	if _, err := g.client.Console(t.Context(), "vga"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("unknown console: %v", err)
	}
}

func (g *guest) testAdopt(t *testing.T) {
	g.t = t
	p, info, err := vmm.Adopt(t.Context(), vmm.AdoptSpec{Name: g.spec.Name, RunDir: g.spec.RunDir, Cgroup: g.spec.Cgroup})
	g.must(err)
	if p.PID != g.process.PID || info.State != vmm.StateRunning {
		t.Errorf("PID %d, %+v", p.PID, info)
	}
}

func (g *guest) testReset(t *testing.T) {
	g.t = t
	g.must(g.client.Reset(t.Context()))
	g.expect("GUEST: ready", bootTime)
	if s := g.ask("mkdir -p /mnt; mount -t ext4 /dev/vda /mnt; cat /mnt/file; umount /mnt"); s != "persistent" {
		t.Errorf("%q", s)
	}
	g.testNetwork(t)
	g.testVsock(t)
}

func (g *guest) testReboot(t *testing.T) {
	g.t = t
	_, err := io.WriteString(g.console, "reboot -f\n")
	g.must(err)
	g.expect("GUEST: ready", bootTime)
	info, err := g.client.Info(t.Context())
	g.must(err)
	if info.Resets != 2 || info.State != vmm.StateRunning {
		t.Errorf("%+v", info)
	}
}

func (g *guest) testPowerButton(t *testing.T) {
	g.t = t
	g.must(g.client.PowerButton(t.Context()))
	r := g.report()
	if r.Status != vmm.ExitGuestOff || r.Reason != vmm.ReasonGuestOff || r.Code != 0 || r.Resets != 2 || r.Signal != 0 {
		t.Errorf("%+v", r)
	}
	kept, err := ring.Read(g.rings[vmm.ConsoleVirtio])
	if err != nil || !bytes.Contains(kept, []byte("GUEST: power button")) {
		t.Errorf("%v: %q", err, kept)
	}
}

func shmem(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Shmem:\s+(\d+) kB`).FindSubmatch(data)
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

func TestKilled(t *testing.T) {
	t.Run("vhost", func(t *testing.T) { testKilled(t, true) })
	t.Run("user space", func(t *testing.T) { testKilled(t, false) })
}

func testKilled(t *testing.T, vhost bool) {
	before := shmem(t)
	g := startGuest(t, "killed", "", vhost)
	g.testNetwork(t)
	if !vhost {
		g.testStreams(t)
		g.testSockets(t)
	}
	stats, err := g.client.Stats(t.Context())
	g.must(err)
	if n := stats.NICs[0]; n.Offloaded != vhost || !vhost && (n.TxPackets == 0 || n.RxPackets == 0 || n.RxDropped != 0 || n.TxErrors != 0) {
		t.Errorf("%+v", n)
	}
	during := shmem(t)
	adopted, _, err := vmm.Adopt(t.Context(), vmm.AdoptSpec{Name: g.spec.Name, RunDir: g.spec.RunDir, Cgroup: g.spec.Cgroup,
		Exit: func(int) (int, int, error) { return -1, int(unix.SIGKILL), nil }})
	g.must(err)
	g.must(g.process.Kill())
	r := g.report()
	if r.Signal != int(unix.SIGKILL) || r.Reason != vmm.ReasonDied || r.Status != -1 || !r.Reason.Crashed() {
		t.Errorf("%+v", r)
	}
	if r, err := adopted.Wait(t.Context()); err != nil || r.Signal != int(unix.SIGKILL) {
		t.Errorf("adopted: %+v, %v", r, err)
	}
	if after := shmem(t); after > before+2<<10+diskSize>>10 {
		t.Errorf("shared memory: %d kB before, %d during, %d after", before, during, after)
	}
}

func TestTerminated(t *testing.T) {
	g := startGuest(t, "deaf", "qv.nobutton", true)
	g.must(g.process.Terminate())
	r := g.report()
	if r.Status != vmm.ExitQuit || r.Reason != vmm.ReasonQuit || r.Code != 0 || r.Last != vmm.StateRunning {
		t.Errorf("%+v", r)
	}
}

func TestQuitWhilePaused(t *testing.T) {
	rig(t)
	v := startFlat(t, "quit", flat.Echo(), 1)
	for _, act := range []func(context.Context) error{v.process.Client().Pause, v.process.Client().Quit} {
		if err := act(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := v.wait(); r.Status != vmm.ExitQuit || r.Last != vmm.StatePaused {
		t.Errorf("%+v", r)
	}
	v.gone()
}

func TestBadKernel(t *testing.T) {
	g := newSpec(t, "bad", "", false)
	g.spec.Files["kernel"] = open(t, g.disk, os.O_RDONLY)
	if _, err := vmm.Spawn(t.Context(), g.spec); err == nil {
		t.Fatal("a disk was booted as a kernel")
	} else {
		t.Logf("%v: %v", qverr.CodeOf(err), err)
	}
	for _, path := range []string{g.spec.Cgroup, vmm.SocketPath(g.spec.RunDir, "bad")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	r, err := vmm.ReadExit(g.spec.RunDir, "bad")
	if err != nil || r.Status != vmm.ExitStart || r.Code == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
