package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/clock"
	"quantavirt/init/guard"
	"quantavirt/init/shutdown"
	"quantavirt/internal/qverr"
)

// kind is how the node ends.
type kind struct {
	name  string
	cmd   int
	sysrq string // the same by sysrq, if reboot(2) fails
}

var (
	reboot   = kind{"reboot", unix.LINUX_REBOOT_CMD_RESTART, "b"}
	powerOff = kind{"power off", unix.LINUX_REBOOT_CMD_POWER_OFF, "o"}
	kexec    = kind{"start of another kernel", unix.LINUX_REBOOT_CMD_KEXEC, "b"}
)

const (
	daemonLimit = 90 * time.Second // the daemon stops the VMs
	vmLimit     = 30 * time.Second // for VMs that the daemon has left
	termLimit   = 3 * time.Second
	killLimit   = 3 * time.Second
)

// Reboot implements control.Node.
func (n *node) Reboot() { n.end(reboot, "request") }

// Kexec implements control.Node.
func (n *node) Kexec() { n.end(kexec, "request") }

// PowerOff implements control.Node.
func (n *node) PowerOff() { n.end(powerOff, "request") }

func (n *node) isEnding() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ending
}

// end ends the node in order and returns at once. Only the first call counts.
func (n *node) end(k kind, why string) {
	n.mu.Lock()
	again := n.ending
	n.ending = true
	n.mu.Unlock()
	if again {
		return
	}
	guard.Go(n.log, "end", func() {
		n.log.Info("the node goes down", "how", k.name, "why", why)
		n.show("quantavirt: " + k.name + " (" + why + ")")
		phases := n.endPhases()
		n.pulseFor(shutdown.Total(phases) + turning)
		shutdown.Run(n.log, phases)
		k.do()
	})
}

// pulseFor keeps the watchdog fed for a time, at whose end the machine is reset
// if it is still there.
func (n *node) pulseFor(d time.Duration) {
	ctx, cancel := context.WithTimeout(n.ctx, d)
	guard.Go(n.log, "pulse", func() {
		defer cancel()
		tick := time.NewTicker(turning / 4)
		defer tick.Stop()
		for {
			n.pulse.Beat()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (n *node) endPhases() []shutdown.Phase {
	return []shutdown.Phase{
		{Name: "daemon", Limit: daemonLimit + 10*time.Second, Run: n.stopDaemon},
		{Name: "virtual machines", Limit: vmLimit + 5*time.Second, Run: n.stopVMs},
		{Name: "processes", Limit: termLimit + killLimit + 2*time.Second, Run: n.stopProcesses},
		{Name: "sync", Limit: 20 * time.Second, Run: func() error { unix.Sync(); return nil }},
		{Name: "data volume", Limit: 10 * time.Second, Run: unmountData},
		{Name: "hardware clock", Limit: 2 * time.Second, Run: func() error { return clock.ToRTC(rtcDevice) }},
		{Name: "consoles", Limit: 2 * time.Second, Run: func() error {
			if n.consoles != nil {
				n.consoles.Flush(time.Second)
			}
			return nil
		}},
	}
}

func (n *node) stopDaemon() error {
	n.mu.Lock()
	d := n.daemon
	n.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.Stop(n.ctx, daemonLimit)
}

// stopVMs ends the VM processes that the daemon has left, which there are only
// if it has died or hung: SIGTERM is the power button to them.
func (n *node) stopVMs() error {
	pids := processes(filepath.Join(cgroupRoot, "vm"))
	if len(pids) == 0 {
		return nil
	}
	n.log.Warn("VMs are left by the daemon", "processes", len(pids))
	ctx, cancel := context.WithTimeout(n.ctx, vmLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGTERM); err == nil {
			wg.Go(func() { _, _ = n.reaper.Wait(ctx, pid) })
		}
	}
	wg.Wait()
	err := os.WriteFile(filepath.Join(cgroupRoot, "vm/cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.CodeOf(err), "end VM processes: %w", err)
	}
	return nil
}

// processes are those in a control group and all below it.
func processes(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// stopProcesses ends everything else.
func (n *node) stopProcesses() error {
	for _, s := range []struct {
		sig   syscall.Signal
		limit time.Duration
	}{{unix.SIGTERM, termLimit}, {unix.SIGKILL, killLimit}} {
		if err := unix.Kill(-1, s.sig); err != nil && !errors.Is(err, unix.ESRCH) {
			n.log.Warn("signal all processes", "err", err)
		}
		select {
		case <-n.reaper.Idle():
			return nil
		case <-time.After(s.limit):
		}
	}
	return qverr.New(qverr.Timeout, "some processes do not end")
}

// unmountData makes the data volume clean: gone, or at least read-only.
func unmountData() error {
	err := unix.Unmount(dataDir, 0)
	if err == nil || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if ro := unix.Mount("", dataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); ro != nil {
		return qverr.New(qverr.CodeOf(err), "unmount the data volume: %w", errors.Join(err, ro))
	}
	return nil
}

// do asks the kernel, which does not come back. If it does, the watchdog or
// whoever pulls the plug is left.
func (k kind) do() {
	_ = unix.Reboot(k.cmd)
	_ = os.WriteFile("/proc/sysrq-trigger", []byte(k.sysrq), 0)
}
