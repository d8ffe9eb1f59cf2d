package vmm

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// AdoptSpec says where a VM of an earlier daemon is.
type AdoptSpec struct {
	Name   string
	RunDir string
	// Cgroup is the VM's cgroup; its process is found by it.
	Cgroup string
	// Exit asks PID 1 how a process ended that was re-parented to it
	// (GET /exits of init.sock). nil, or an error, makes the exit report the only
	// source.
	Exit func(pid int) (status, signal int, err error)
}

// Adopt takes over a VM that an earlier daemon started. It fails with
// QV_ERR_NOENT when the VM does not run: ReadExit may then know why, and
// Cleanup removes what it left.
func Adopt(ctx context.Context, spec AdoptSpec) (*Process, Info, error) {
	pid, err := cgroupPID(spec.Cgroup)
	if err != nil {
		return nil, Info{}, qverr.New(qverr.NoEnt, "VM %s does not run: %w", spec.Name, err)
	}
	p := newProcess(spec.Name, spec.RunDir, spec.Cgroup, pid)
	info, err := p.Client().Info(ctx)
	if err != nil {
		if p.pidfd != nil {
			p.pidfd.Close()
		}
		return nil, Info{}, err
	}
	if p.pidfd == nil {
		return nil, Info{}, qverr.New(qverr.NoEnt, "VM %s ended just now", spec.Name)
	}
	go p.watch(p.pidfd, spec.Exit)
	return p, info, nil
}

// watch waits for the end of a process that is not our child.
func (p *Process) watch(pidfd *os.File, exit func(int) (int, int, error)) {
	if err := waitReadable(pidfd); err != nil {
		// The pidfd cannot be waited for: the end of the control socket is
		// the next best sign.
		for state, err := State(""), error(nil); !errors.Is(err, qverr.NoEnt); {
			var info Info
			info, err = p.Client().Wait(context.Background(), state)
			state = info.State
		}
	}
	words, _ := ReadExit(p.runDir, p.Name)
	status, sig := -1, 0
	if words.Reason != "" {
		status = words.Status
	}
	if exit != nil {
		if s, g, err := exit(p.PID); err == nil {
			status, sig = s, g
		}
	}
	p.finish(status, sig)
}

// waitReadable blocks in the runtime's poller, not in a thread.
func waitReadable(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failure = err
			return true
		}
		return n > 0
	})
	return errors.Join(err, failure)
}
