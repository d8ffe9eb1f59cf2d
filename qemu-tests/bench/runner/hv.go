package main

import (
	"context"
	"os/exec"
	"strconv"
	"time"

	"quantavirt/hv/vmm"
)

// runDir is where hv run keeps the control socket of the one VM that it has here.
const (
	runDir = "/run/bench"
	vmName = "bench"
)

// hvRun is a command with a serial port on its standard streams: what a user types who
// has no appliance.
func hvRun(cpus int, args ...string) []string {
	command := []string{dir + "/hv", "run", "--name", vmName, "--run-dir", runDir, "--console", vmm.ConsoleSerial,
		"--memory", memory, "--cpus", strconv.Itoa(cpus)}
	return append(command, args...)
}

// quit ends the VM, which outlives hv run.
func quit(cmd *exec.Cmd) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := vmm.NewClient(vmm.SocketPath(runDir, vmName)).Quit(ctx); err != nil {
		_ = cmd.Process.Kill() // it is over, or never was
	}
}
