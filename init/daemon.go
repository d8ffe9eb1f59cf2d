package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/cmdline"
	"quantavirt/init/guard"
	"quantavirt/init/manage"
	"quantavirt/init/supervise"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

const (
	daemonPath = "/bin/quantavirt"
	// daemonOOM protects the daemon; VMs are given a value of their own.
	daemonOOM    = "-900"
	cgroupRoot   = "/sys/fs/cgroup"
	rescuePause  = time.Second
	openFiles    = 1 << 20
	complainFrom = 3 // quick deaths of the daemon
)

// shells for rescue. One of several commands in one program goes by its name.
var shells = []string{"/bbin/gosh", "/bin/sh"}

var environment = []string{"PATH=/bin:/bbin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TERM=linux", "LANG=C.UTF-8"}

// startDaemon begins the supervision; the step ends when the daemon was
// executed for the first time.
func (n *node) startDaemon(ctx context.Context) error {
	for _, dir := range []string{"/root", "/run/quantavirt/vm"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			n.log.Warn("directories", "err", err)
		}
	}
	if err := os.Chmod("/root", 0o700); err != nil {
		n.log.Warn("home of root", "err", err)
	}
	// Through syscall, so that Go's own idea of the limit is not given to children.
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: openFiles}); err != nil {
		n.log.Warn("limit of open files", "err", err)
	}
	out, err := n.outputPipe()
	if err != nil {
		return err
	}
	first := make(chan error, 1)
	sup := supervise.New(supervise.Process{
		Name: "the management",
		Start: func() (int, <-chan wire.Exit, error) {
			pid, done, err := n.execManager(out)
			select {
			case first <- err:
			default:
			}
			return pid, done, err
		},
		Kill: syscall.Kill,
	}, supervise.Options{Log: n.log, Beat: n.turn, Died: n.managerDied})
	n.mu.Lock()
	n.daemon = sup
	n.started = sinceStart()
	n.mu.Unlock()
	guard.Loop(n.ctx, n.log, "supervisor", func(context.Context) { sup.Run() })
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return qverr.New(qverr.Timeout, "the daemon was not executed: %w", ctx.Err())
	}
}

// outputPipe is what the daemon writes to. It outlives each daemon, so that
// nothing is lost, and a child that holds it holds up nobody.
func (n *node) outputPipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "output of the daemon: %w", err)
	}
	guard.Loop(n.ctx, n.log, "output of the daemon", func(context.Context) {
		buf := make([]byte, 16<<10)
		for {
			k, err := r.Read(buf)
			if err != nil {
				n.log.Error("output of the daemon", "err", err)
				return
			}
			_, _ = n.ring.Write(buf[:k])
			_, _ = n.words.Write(buf[:k])
		}
	})
	return w, nil
}

// execManager starts what manages the node now.
func (n *node) execManager(out *os.File) (int, <-chan wire.Exit, error) {
	name := "daemon"
	if n.manager.Start(sinceStart()) == manage.Rescue {
		name = "rescue"
	}
	n.words.Forget()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, qverr.New(qverr.CodeOf(err), "start the %s: %w", name, err)
	}
	defer func() { _ = null.Close() }()
	group := filepath.Join(cgroupRoot, "appliance")
	// What a dead daemon left running would hold its files and sockets.
	_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
	attr := &syscall.ProcAttr{
		Dir: "/", Env: environment, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if dir, err := os.OpenFile(group, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		defer func() { _ = dir.Close() }()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	} else {
		n.log.Error("control group of the daemon", "err", err)
	}
	pid, done, err := n.reaper.Start(daemonPath, []string{daemonPath, name}, attr)
	if err != nil {
		return 0, nil, err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(daemonOOM), 0); err != nil {
		n.log.Warn("protect the "+name, "err", err)
	}
	n.log.Info("the "+name+" runs", "pid", pid)
	return pid, done, nil
}

// startRescue runs a shell on every console, if the command line asks for it.
func (n *node) startRescue(context.Context) error {
	if !n.line.Flag(cmdline.OptRescue) || n.consoles == nil {
		return nil
	}
	i := slices.IndexFunc(shells, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
	if i < 0 {
		return qverr.New(qverr.NoEnt, "quantavirt.rescue: the image has no shell")
	}
	path := shells[i]
	for _, name := range n.consoles.Names() {
		guard.Loop(n.ctx, n.log, "rescue shell on "+name, func(ctx context.Context) {
			for !n.isEnding() {
				if err := n.runShell(path, "/dev/"+name); err != nil {
					n.log.Error("rescue shell", "err", err)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(rescuePause):
				}
			}
		})
	}
	return nil
}

// runShell runs a shell on a terminal that becomes its controlling one.
func (n *node) runShell(path, tty string) error {
	fd, err := unix.Open(tty, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "open %s: %w", tty, err)
	}
	f := uintptr(fd)
	_, done, err := n.reaper.Start(path, []string{filepath.Base(path)}, &syscall.ProcAttr{
		Dir: "/root", Env: environment, Files: []uintptr{f, f, f},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	err = errors.Join(err, unix.Close(fd))
	if err != nil {
		return err
	}
	e := <-done
	n.log.Info("rescue shell ended", "tty", tty, "status", e.Status, "signal", e.Signal)
	return nil
}
