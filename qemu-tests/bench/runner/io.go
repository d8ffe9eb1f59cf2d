package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/qemu-tests/bench/figure"
)

const (
	tapName      = "bench0"
	hostAddress  = "10.77.0.1"
	guestAddress = "10.77.0.2/30"
	peerPort     = 7700
	guestCID     = 77
	diskFile     = "/tmp/bench.img"
	diskBytes    = 64 << 20
	randomBytes  = 4 << 10
	streamBytes  = 64 << 10 // of sequential I/O, and the operation of a stream
)

// inNamespace runs this program's I/O part in a network namespace of its own, where
// no rule of the node's firewall says what a guest may reach.
func inNamespace(monitors, ms, rounds string) error {
	cmd := exec.Command("/proc/self/exe", "io", monitors, ms, rounds)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return cmd.Run()
}

// measureIO lets one guest of each monitor do I/O for some milliseconds of each kind,
// with 1 and with 4 vCPUs.
func measureIO(monitors []string, cpus []int, ms int) error {
	var errs []error
	for _, n := range cpus {
		for _, monitor := range monitors {
			err := withGuest(monitor, n, func(console io.ReadWriter) error {
				g := guest{monitor: monitor, cpus: n, ms: ms, out: console, in: bufio.NewScanner(console)}
				return g.measure()
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("I/O of %s with %d vCPUs: %w", monitor, n, err))
			}
		}
	}
	return errors.Join(errs...)
}

// prepareIO makes disk and TAP, and starts what guests talk to.
func prepareIO() error {
	if err := os.WriteFile(diskFile, bytes.Repeat([]byte("QuantaV "), diskBytes/8), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(exitsDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("debugfs", exitsDir, "debugfs", 0, ""); err != nil {
		return fmt.Errorf("mount debugfs: %w", err)
	}
	tap := &netlink.Tuntap{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR}
	tap.Name = tapName
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("TAP: %w", err)
	}
	addr, err := netlink.ParseAddr(hostAddress + "/30")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(tap, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return err
	}
	return serve()
}

// withGuest starts a guest that has a disk, a network card and vsock.
func withGuest(monitor string, cpus int, see func(console io.ReadWriter) error) error {
	use := func(console io.ReadWriter, _ int) error { return see(console) }
	if monitor == figure.HV {
		return attendTo(hvRun(cpus, "--kernel", kernels["pvh"], "--initrd", dir+"/initrd", "--cmdline", cmdline,
			"--disk", fmt.Sprintf("%s,queues=%d", diskFile, cpus), "--tap", tapName, "--vsock", strconv.Itoa(guestCID)), guestTime, quit, use)
	}
	args := append(qemuDisk(monitor, cpus, diskFile), "-kernel", kernels["pvh"], "-initrd", dir+"/initrd", "-append", cmdline,
		"-netdev", "tap,id=net,ifname="+tapName+",script=no,downscript=no,vhost=on",
		"-device", fmt.Sprintf("vhost-vsock-%s,guest-cid=%d", transports[monitor], guestCID))
	nic := "virtio-net-" + transports[monitor] + ",netdev=net"
	if monitor == figure.Q35 {
		nic += ",romfile="
	}
	return attendTo(qemu(monitor, cpus, append(args, "-device", nic)...), guestTime, kill, use)
}

// qemuDisk is a disk with an I/O thread and a queue for each vCPU.
func qemuDisk(machine string, queues int, path string) []string {
	return []string{"-object", "iothread,id=io", "-drive", "if=none,id=disk,format=raw,aio=io_uring,cache=writeback,file=" + path,
		"-device", fmt.Sprintf("virtio-blk-%s,drive=disk,iothread=io,num-queues=%d", transports[machine], queues)}
}

// guest is the agent of one that runs.
type guest struct {
	monitor  string
	cpus, ms int
	out      io.Writer
	in       *bufio.Scanner
	asked    int
	idle     uint64 // exits of a question and its answer alone
}

// ask has the agent carry out a command and returns what it answers.
func (g *guest) ask(format string, args ...any) (string, error) {
	g.asked++
	tag := fmt.Sprintf("@%03d ", g.asked)
	if _, err := fmt.Fprintf(g.out, tag+format+"\n", args...); err != nil {
		return "", err
	}
	for g.in.Scan() {
		if _, answer, ok := strings.Cut(g.in.Text(), tag); ok {
			if text, ok := strings.CutPrefix(answer, "ok"); ok {
				return strings.TrimSpace(text), nil
			}
			return "", fmt.Errorf("%s: the guest says %s", fmt.Sprintf(format, args...), answer)
		}
	}
	return "", fmt.Errorf("%s: the guest ended", fmt.Sprintf(format, args...))
}

func (g *guest) measure() error {
	for !strings.Contains(g.in.Text(), guestReady) {
		if !g.in.Scan() {
			return errors.New("the guest ended before it was ready")
		}
	}
	if _, err := g.ask("address %s", guestAddress); err != nil {
		return err
	}
	before, err := exits()
	if err != nil {
		return err
	}
	if _, err := g.ask("nothing %30d", 0); err != nil {
		return err
	}
	after, err := exits()
	if err != nil {
		return err
	}
	g.idle = after - before
	if err := g.disk(); err != nil {
		return err
	}
	return g.streams()
}

// disk measures every pattern at both depths. Jobs are as many as vCPUs, and share the
// depth if it is more than that.
func (g *guest) disk() error {
	for _, p := range []struct {
		way, order, name string
		size             int
	}{
		{"read", "random", "random 4 KiB reads", randomBytes}, {"write", "random", "random 4 KiB writes", randomBytes},
		{"read", "sequential", "sequential 64 KiB reads", streamBytes}, {"write", "sequential", "sequential 64 KiB writes", streamBytes},
	} {
		for _, depth := range []int{1, 32} {
			jobs := min(g.cpus, depth)
			err := g.one(fmt.Sprintf("%s, depth %d", p.name, depth), p.size, 1,
				fmt.Sprintf("bench-disk vda %s %s %d %d %d %d", p.way, p.order, p.size, depth/jobs, jobs, g.ms))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guest) streams() error {
	for _, kind := range []struct{ name, address string }{{"tcp", fmt.Sprintf("%s:%d", hostAddress, peerPort)}, {"vsock", strconv.Itoa(peerPort)}} {
		for _, way := range []struct{ verb, name string }{{"send", " to the host"}, {"receive", " to the guest"}, {"ask", " requests"}} {
			size, operation := 1, streamBytes
			if way.verb == "ask" {
				size, operation = randomBytes, 1
			}
			err := g.one(strings.ToUpper(kind.name)+way.name, size, operation, fmt.Sprintf("bench-stream %s %s %s %d", kind.name, way.verb, kind.address, g.ms))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// one runs a command that answers how many pieces it moved in which time. They are of
// size bytes each, of which a rate is shown if they are not small; so many are an operation.
func (g *guest) one(name string, size, operation int, command string) error {
	before, err := exits()
	if err != nil {
		return err
	}
	answer, err := g.ask("%s", command)
	if err != nil {
		return err
	}
	after, err := exits()
	if err != nil {
		return err
	}
	var n, us int64
	if !scan(answer, "n=%d us=%d", &n, &us) || n == 0 || us == 0 {
		return fmt.Errorf("%s: the guest says %q", command, answer)
	}
	f := figure.Figure{Monitor: g.monitor, Name: fmt.Sprintf("%s, %d vCPU", name, g.cpus), Unit: figure.PerSecond, Value: float64(n) / float64(us) * 1e6}
	if size != randomBytes {
		f.Unit, f.Value = figure.MBPerSecond, float64(n)*float64(size)/float64(us)
	}
	f.Exits = (float64(after-before) - float64(g.idle)) / (float64(n) / float64(operation))
	tell(f)
	return nil
}

// exitsDir is where debugfs is mounted.
const exitsDir = "/tmp/debugfs"

// exits counts those of all VMs that run, from KVM's statistics, so that both monitors
// are counted alike.
func exits() (uint64, error) {
	text, err := os.ReadFile(exitsDir + "/kvm/exits")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
