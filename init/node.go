package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/cmdline"
	"quantavirt/init/console"
	"quantavirt/init/guard"
	"quantavirt/init/kmod"
	"quantavirt/init/logring"
	"quantavirt/init/manage"
	"quantavirt/init/medium"
	"quantavirt/init/reap"
	"quantavirt/init/seq"
	"quantavirt/init/supervise"
	"quantavirt/init/uevent"
	"quantavirt/init/volume"
	"quantavirt/init/watchdog"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
	"quantavirt/internal/version"
)

const (
	logSize = 512 << 10
	dataDir = "/var/lib/quantavirt"
)

// node is everything PID 1 holds. What a step makes is only used by steps that
// come after it.
type node struct {
	ctx    context.Context // ends never; for what wants one
	log    *slog.Logger
	ring   *logring.Ring
	reaper *reap.Reaper
	pulse  watchdog.Pulse

	line     cmdline.Line
	loader   medium.Loader
	events   *uevent.Listener
	modules  *kmod.Loader
	quiet    *kmod.Loader // the same, for what nobody waits for
	consoles *console.Set
	daemon   *supervise.Supervisor // of the daemon, or the rescue listener in its place
	manager  manage.Manager
	words    manage.Words // of the daemon
	warm     *os.File     // empty VM that keeps virtualization switched on

	blessed chan struct{}            // closed when this boot is no trial of an update, or no more
	ended   map[string]chan struct{} // by step, closed when it has ended
	settled chan struct{}            // closed when all have
	api     chan struct{}            // closed when the API first answers

	unlocking sync.Mutex // one at a time opens the data volume

	looking sync.Mutex    // for cards, one at a time
	looked  chan struct{} // closed at the next look for cards; mu guards it

	mu      sync.Mutex
	boot    wire.Boot
	shut    *volume.Block // encrypted data volume that the TPM did not open
	started time.Duration // when the daemon was first executed
	ready   bool
	ending  bool     // the node goes down
	early   []string // for the consoles, once they are open
}

func newNode() *node {
	n := &node{ctx: context.Background(), ring: logring.New(logSize), reaper: reap.New(), api: make(chan struct{}), settled: make(chan struct{}), blessed: make(chan struct{}), looked: make(chan struct{})}
	n.log = qvlog.New(n.ring, qvlog.Options{Level: slog.LevelDebug}).With(qvlog.KeySubsystem, "init")
	n.boot.Version = version.Version
	n.boot.IOMMU.Groups = []wire.Group{}
	n.boot.Cards = []wire.Card{}
	return n
}

// sinceStart is the time since the kernel began to count, CLOCK_BOOTTIME.
func sinceStart() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// run boots. It returns when all steps have ended.
func (n *node) run() {
	kernel := seq.Result{Name: "kernel", Took: sinceStart()}
	guard.Go(n.log, "kernel", func() { n.add(kernel) })
	steps := n.sequence()
	n.ended = make(map[string]chan struct{}, len(steps))
	for _, s := range steps {
		n.ended[s.Name] = make(chan struct{})
	}
	err := seq.Run(n.ctx, steps, sinceStart, func(r seq.Result) {
		n.add(r)
		close(n.ended[r.Name])
	})
	if err != nil {
		n.log.Error("boot", "err", err)
	}
	close(n.settled)
}

// add records a step that has ended, and says on the consoles what went wrong.
func (n *node) add(r seq.Result) {
	step := wire.Step{Name: r.Name, StartMS: r.Start.Milliseconds(), TookMS: r.Took.Milliseconds(), Problem: wire.NewProblem(r.Err)}
	n.mu.Lock()
	n.boot.Steps = append(n.boot.Steps, step)
	n.mu.Unlock()
	if r.Err == nil {
		n.log.Info("step "+r.Name, "start_ms", step.StartMS, "took_ms", step.TookMS)
		return
	}
	n.log.Error("step "+r.Name, "err", r.Err, "start_ms", step.StartMS, "took_ms", step.TookMS)
	n.say(r.Err)
}

// say shows an error on the consoles, or keeps it until there are some.
func (n *node) say(err error) {
	p := wire.NewProblem(err)
	n.show(fmt.Sprintf("quantavirt: %s (%d): %s", p.Name, p.Code, p.Message))
}

func (n *node) show(text string) {
	n.mu.Lock()
	set := n.consoles
	if set == nil {
		n.early = append(n.early, text)
	}
	n.mu.Unlock()
	if set != nil {
		set.Say(text)
	}
}

// Boot implements control.Node.
func (n *node) Boot() wire.Boot {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.boot
	b.Steps = slices.Clone(b.Steps)
	slices.SortStableFunc(b.Steps, func(a, b wire.Step) int {
		return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), cmp.Compare(a.StartMS+a.TookMS, b.StartMS+b.TookMS))
	})
	b.Options = n.line.Options()
	b.Restarts = n.manager.Restarts()
	b.Rescue = n.manager.Rescue()
	return b
}

// WaitBoot implements control.Node.
func (n *node) WaitBoot(ctx context.Context, step string) error {
	done, ok := n.ended[step]
	if step == "" {
		done, ok = n.settled, true
	}
	if !ok {
		return qverr.New(qverr.NoEnt, "the boot has no step %.40q", step)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return qverr.New(qverr.CodeOf(ctx.Err()), "wait for the boot: %w", ctx.Err())
	}
}

// Exit implements control.Node.
func (n *node) Exit(pid int) (wire.Exit, bool) { return n.reaper.Exit(pid) }

// WaitExit implements control.Node.
func (n *node) WaitExit(ctx context.Context, pid int) (wire.Exit, error) {
	return n.reaper.Wait(ctx, pid)
}

// Banner implements control.Node.
func (n *node) Banner(lines []string) {
	n.mu.Lock()
	set := n.consoles
	n.mu.Unlock()
	if set != nil {
		set.Show(lines)
	}
}

// Ready implements control.Node: the first time it is the last step of the boot.
func (n *node) Ready() {
	n.manager.Ready(sinceStart())
	n.mu.Lock()
	first := !n.ready
	n.ready = true
	started := n.started
	n.mu.Unlock()
	if first {
		close(n.api)
		n.add(seq.Result{Name: "ready", Start: started, Took: sinceStart() - started})
	} else {
		n.log.Info("the daemon is ready again")
	}
}

// Log implements control.Node.
func (n *node) Log() []byte { return n.ring.Bytes() }

// set changes what Boot shows.
func (n *node) set(change func(b *wire.Boot)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.boot)
}
