// Package reap is the one place in PID 1 that waits for processes. It hands the
// statuses of PID 1's own children to whoever started them and remembers those
// of all others, which the kernel gave to PID 1 when their parents died. Nothing
// else in PID 1 may wait: os/exec must not be used beside it.
package reap

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// Keep is how many exits are remembered.
const Keep = 4096

// Reaper collects the exits of children. See New.
type Reaper struct {
	collecting sync.Mutex // held from a wait until its status is handed out

	mu      sync.Mutex // also held over a fork, so that no exit is handed out before its child is known
	exits   map[int]wire.Exit
	order   []int // numbers in exits, oldest at next
	next    int
	waiters map[int][]chan wire.Exit
	idle    []chan struct{} // closed when there are no children left
}

// New makes a Reaper; Run must be called for anything to happen.
func New() *Reaper {
	return &Reaper{exits: make(map[int]wire.Exit), waiters: make(map[int][]chan wire.Exit)}
}

// Run reaps at every signal, which is SIGCHLD, until ctx ends. One signal may
// stand for any number of children, and a buffer of one signal is enough, as a
// child that ends after the last wait leaves another.
func (r *Reaper) Run(ctx context.Context, signals <-chan os.Signal) {
	for {
		r.Collect()
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
	}
}

// Collect reaps everything that has ended.
func (r *Reaper) Collect() {
	r.collecting.Lock()
	defer r.collecting.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			r.noChildren()
			return
		case err != nil || pid <= 0:
			return
		}
		r.ended(exitOf(pid, ws))
	}
}

func exitOf(pid int, ws unix.WaitStatus) wire.Exit {
	e := wire.Exit{PID: pid, Status: -1, Time: time.Now().UTC()}
	if ws.Signaled() {
		e.Signal, e.Core = int(ws.Signal()), ws.CoreDump()
	} else {
		e.Status = ws.ExitStatus()
	}
	return e
}

func (r *Reaper) ended(e wire.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.waiters[e.PID] {
		w <- e // has room for one
	}
	delete(r.waiters, e.PID)
	if _, known := r.exits[e.PID]; !known {
		r.remember(e.PID)
	}
	r.exits[e.PID] = e
}

// remember makes room for one more exit.
func (r *Reaper) remember(pid int) {
	if len(r.order) < Keep {
		r.order = append(r.order, pid)
		return
	}
	delete(r.exits, r.order[r.next])
	r.order[r.next] = pid
	r.next = (r.next + 1) % Keep
}

func (r *Reaper) noChildren() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.idle {
		close(c)
	}
	r.idle = nil
}

// Start starts a program. Its exit comes on the channel, once.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan wire.Exit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, qverr.New(qverr.CodeOf(err), "start %s: %w", path, err)
	}
	return pid, r.await(pid), nil
}

// await registers a waiter; mu is held.
func (r *Reaper) await(pid int) chan wire.Exit {
	c := make(chan wire.Exit, 1)
	r.waiters[pid] = append(r.waiters[pid], c)
	return c
}

// Exit is how a process ended that is still remembered.
func (r *Reaper) Exit(pid int) (wire.Exit, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.exits[pid]
	return e, ok
}

// Wait is Exit, but waits while the process lives. QV_ERR_NOENT: there is no
// such process, or somebody else reaped it.
func (r *Reaper) Wait(ctx context.Context, pid int) (wire.Exit, error) {
	r.mu.Lock()
	e, ok := r.exits[pid]
	if ok {
		r.mu.Unlock()
		return e, nil
	}
	c := r.await(pid)
	r.mu.Unlock()
	// A zombie can still be signalled, so that what is gone here was reaped: by
	// us, and after Collect it is in the channel, or by its parent.
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		r.Collect()
		select {
		case e := <-c:
			return e, nil
		default:
			r.forget(pid, c)
			return e, qverr.New(qverr.NoEnt, "there is no process %d, and none was reaped", pid)
		}
	}
	select {
	case e := <-c:
		return e, nil
	case <-ctx.Done():
		r.forget(pid, c)
		return e, qverr.New(qverr.CodeOf(ctx.Err()), "wait for process %d: %w", pid, ctx.Err())
	}
}

func (r *Reaper) forget(pid int, c chan wire.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.waiters[pid]
	for i, w := range ws {
		if w == c {
			r.waiters[pid] = append(ws[:i], ws[i+1:]...)
			break
		}
	}
	if len(r.waiters[pid]) == 0 {
		delete(r.waiters, pid)
	}
}

// Idle is closed when PID 1 has no children left.
func (r *Reaper) Idle() <-chan struct{} {
	c := make(chan struct{})
	r.mu.Lock()
	r.idle = append(r.idle, c)
	r.mu.Unlock()
	r.Collect()
	return c
}
