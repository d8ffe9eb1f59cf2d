package vmm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Process is a VM process that this daemon started or adopted.
type Process struct {
	Name string
	PID  int // in the daemon's PID namespace

	runDir string
	cgroup string

	mu    sync.Mutex // guards pidfd against its end
	pidfd *os.File

	done   chan struct{} // closed when report is set and all is cleaned up
	report ExitReport
}

func newProcess(name, runDir, cgroup string, pid int) *Process {
	p := &Process{Name: name, PID: pid, runDir: runDir, cgroup: cgroup, done: make(chan struct{})}
	// Nobody has waited for the process yet, or it is not ours and Adopt checks it.
	if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
		p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	return p
}

// Client returns a client of the process's control socket.
func (p *Process) Client() *Client { return NewClient(SocketPath(p.runDir, p.Name)) }

// Done is closed after the process has ended and its socket and cgroup are gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and says why it came. An error means only that ctx
// ended first.
func (p *Process) Wait(ctx context.Context) (ExitReport, error) {
	select {
	case <-p.done:
		return p.report, nil
	case <-ctx.Done():
		return ExitReport{}, qverr.New(qverr.CodeOf(ctx.Err()), "VM %s still runs: %w", p.Name, ctx.Err())
	}
}

// Kill ends the process at once, with SIGKILL.
func (p *Process) Kill() error { return p.signal(unix.SIGKILL) }

// Terminate sends SIGTERM: the power button, and Quit after the grace period.
func (p *Process) Terminate() error { return p.signal(unix.SIGTERM) }

func (p *Process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return nil // it is gone
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "signal VM %s: %w", p.Name, err)
	}
	// Not Fd(): that would take the descriptor away from the poller.
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); ctlErr != nil {
		err = ctlErr
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return qverr.New(qverr.CodeOf(err), "signal VM %s: %w", p.Name, err)
	}
	return nil
}

// reap waits for our own child.
func (p *Process) reap(cmd *exec.Cmd) {
	_ = cmd.Wait() // the status is in ProcessState
	status, sig := -1, 0
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		if ws.Signaled() {
			sig = int(ws.Signal())
		} else {
			status = ws.ExitStatus()
		}
	}
	p.finish(status, sig)
}

func (p *Process) finish(status, sig int) {
	words, _ := ReadExit(p.runDir, p.Name) // none is the zero value
	p.report = Report(status, sig, words)
	p.mu.Lock()
	if p.pidfd != nil {
		p.pidfd.Close()
		p.pidfd = nil
	}
	p.mu.Unlock()
	cleanup(context.Background(), p.runDir, p.Name, p.cgroup)
	close(p.done)
}

// Cleanup removes what a VM that does not run has left: its control socket and
// its cgroup, with whatever is still in it. The exit report stays.
func Cleanup(ctx context.Context, runDir, name, cgroup string) error {
	return cleanup(ctx, runDir, name, cgroup)
}

func cleanup(ctx context.Context, runDir, name, cgroup string) error {
	var errs []error
	for _, path := range []string{SocketPath(runDir, name), VsockPath(runDir, name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, removeCgroup(ctx, cgroup))...)
}
