package main

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"quantavirt/qemu-tests/bench/figure"
)

// machines are the arguments of QEMU that make a machine what its users have.
var machines = map[string][]string{
	figure.MicroVM: {"-M", "microvm,accel=kvm,memory-backend=mem", "-global", "virtio-mmio.force-legacy=false"},
	figure.Q35:     {"-M", "q35,accel=kvm,memory-backend=mem"},
}

// transports end the names of a machine's virtio devices.
var transports = map[string]string{figure.MicroVM: "device", figure.Q35: "pci"}

// qemu is a command with a serial port on its standard streams.
func qemu(machine string, cpus int, args ...string) []string {
	command := []string{dir + "/lib/ld-linux-x86-64.so.2", "--library-path", dir + "/lib", dir + "/qemu-system-x86_64", "-L", dir + "/share",
		"-cpu", "host", "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio",
		"-object", "memory-backend-memfd,id=mem,size=" + memory, "-m", memory, "-smp", strconv.Itoa(cpus)}
	return append(append(command, machines[machine]...), args...)
}

// startQEMU is a starter.
func startQEMU(machine string) starter {
	return func(guest, text string, seen func(ms float64, pid int) error) error {
		started := monotonic()
		command := qemu(machine, 1, "-kernel", kernels[guest], "-initrd", dir+"/initrd", "-append", cmdline)
		return attendTo(command, startTime, kill, func(console io.ReadWriter, pid int) error {
			if err := await(console, text); err != nil {
				return err
			}
			return seen((monotonic()-started).Seconds()*1000, pid)
		})
	}
}

const (
	startTime = 90 * time.Second // until a guest is up
	guestTime = 4 * time.Minute  // for all that it does
)

func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// attendTo runs a monitor whose guest's serial port is its standard streams, lets see
// use it, and ends it after that or after the limit.
func attendTo(command []string, limit time.Duration, end func(*exec.Cmd), see func(console io.ReadWriter, pid int) error) error {
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var errText strings.Builder
	cmd.Stderr = &errText
	in, err := cmd.StdinPipe() // kept open: end of input may end a monitor
	if err != nil {
		return err
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { end(cmd) })
	defer timer.Stop()
	err = see(struct {
		io.Reader
		io.Writer
	}{out, in}, cmd.Process.Pid)
	end(cmd)
	_ = cmd.Wait()
	if err != nil {
		return fmt.Errorf("%w: %s", err, errText.String())
	}
	return nil
}
