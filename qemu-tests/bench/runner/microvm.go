package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

func startMicroVM(guest, text string, seen func(ms float64, pid int) error) error {
	started := monotonic()
	return runMicroVM([]string{"-kernel", kernels[guest], "-initrd", dir + "/initrd", "-append", cmdline}, func(stdout io.Reader, pid int) error {
		if err := await(stdout, text); err != nil {
			return err
		}
		return seen((monotonic()-started).Seconds()*1000, pid)
	})
}

// runMicroVM runs QEMU with a guest, whose serial port attend reads, and ends it after.
func runMicroVM(guest []string, attend func(stdout io.Reader, pid int) error) error {
	command := append([]string{dir + "/lib/ld-linux-x86-64.so.2", "--library-path", dir + "/lib", dir + "/qemu-system-x86_64", "-L", dir + "/share",
		"-M", "microvm,accel=kvm,memory-backend=mem", "-cpu", "host", "-nodefaults", "-no-user-config", "-nographic",
		"-object", "memory-backend-memfd,id=mem,size=" + memory, "-m", memory, "-smp", "1", "-serial", "stdio"}, guest...)
	cmd := exec.Command(command[0], command[1:]...)
	stdout, err := cmd.StdoutPipe()
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
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	limit := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := attend(stdout, cmd.Process.Pid); err != nil {
		return fmt.Errorf("%w: %s", err, errText.String())
	}
	return nil
}
