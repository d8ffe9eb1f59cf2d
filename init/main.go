package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/internal/version"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(notPID1(os.Args))
	}
	n := newNode()
	_ = guard.Run(n.log, "PID 1", func() { live(n) })
	// Not reached unless live panicked. The kernel must not see PID 1 end.
	fmt.Fprintln(os.Stderr, "quantavirt: PID 1 has lost its main loop; the node runs on, but cannot be shut down in order")
	for range time.Tick(time.Hour) {
	}
}

// live is the life of PID 1.
func live(n *node) {
	debug.SetGCPercent(40)
	// Our programs need a tenth of a huge page, and would get one for each piece of
	// theirs that lies in one. It holds for all processes from here on (prctl(2)) but
	// those of VMs, which undo it.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // Ctrl-Alt-Del becomes SIGINT
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	guard.Loop(n.ctx, n.log, "reaper", func(ctx context.Context) { n.reaper.Run(ctx, children) })
	guard.Go(n.log, "boot", func() {
		n.run()
		debug.FreeOSMemory()
	})
	commands := make(chan os.Signal, 16)
	signal.Notify(commands, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPWR, syscall.SIGUSR2,
		// Those that would end a Go program.
		syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGSTKFLT)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP, syscall.SIGXFSZ, syscall.SIGXCPU)
	for s := range commands {
		_ = guard.Run(n.log, "signal", func() { n.command(s) })
	}
}

// command obeys a signal.
func (n *node) command(s os.Signal) {
	switch s {
	case syscall.SIGINT, syscall.SIGTERM:
		n.end(reboot, s.String())
	case syscall.SIGPWR, syscall.SIGUSR2:
		n.end(powerOff, s.String())
	default:
		n.log.Warn("a signal is ignored", "signal", s.String())
	}
}

// notPID1 is what happens when the program is started by somebody else: the
// kernel, which asks for a module, or a person.
func notPID1(args []string) int {
	if len(args) == 4 && args[1] == "-q" && args[2] == "--" {
		return modprobe(args[3])
	}
	fmt.Fprintf(os.Stderr, "init %s is PID 1 of the QuantaVirt image and does nothing elsewhere\n", version.Version)
	return 2
}
