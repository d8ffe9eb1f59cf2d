// Package supervise keeps one process running: it is started again whenever it
// ends, at once if it had run well, and after growing pauses if it keeps dying.
package supervise

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

const (
	// Healthy is how long the process must have run for the back-off to begin
	// anew.
	Healthy = 10 * time.Second
	// FirstPause follows the second quick death; it doubles up to LastPause.
	FirstPause = 500 * time.Millisecond
	LastPause  = 30 * time.Second
	// Tick is how often Beat is called while nothing happens.
	Tick = 2 * time.Second

	killGrace = 5 * time.Second
)

// Pause is the time before the next start after a number of quick deaths in a
// row.
func Pause(deaths int) time.Duration {
	switch {
	case deaths <= 1:
		return 0
	case deaths > 8:
		return LastPause
	}
	return min(FirstPause<<(deaths-2), LastPause)
}

// Process is what a Supervisor runs.
type Process struct {
	Name  string
	Start func() (pid int, done <-chan wire.Exit, err error)
	Kill  func(pid int, sig syscall.Signal) error
}

// Options of a Supervisor.
type Options struct {
	Log *slog.Logger
	// Beat is called at every turn of the loop: as long as it is called, the
	// supervisor lives.
	Beat func()
	// Died is called after each death that was not asked for, with the number
	// of quick deaths in a row.
	Died func(e wire.Exit, deaths int)
}

// Supervisor runs one process. See New.
type Supervisor struct {
	proc Process
	opts Options
	stop chan time.Duration // limit of an orderly end
	done chan struct{}

	mu     sync.Mutex
	starts int
	pid    int
}

// New makes a Supervisor for p; Run starts it.
func New(p Process, o Options) *Supervisor {
	return &Supervisor{proc: p, opts: o, stop: make(chan time.Duration, 1), done: make(chan struct{})}
}

// Restarts is how often the process had to be started again.
func (s *Supervisor) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.starts-1, 0)
}

// PID is that of the running process, 0 if none runs.
func (s *Supervisor) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Stop ends the process with SIGTERM, and after limit with SIGKILL, and the
// supervision with it. It returns when both have ended, or with ctx.
func (s *Supervisor) Stop(ctx context.Context, limit time.Duration) error {
	select {
	case s.stop <- limit:
	default: // already asked
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return qverr.New(qverr.CodeOf(ctx.Err()), "stop %s: %w", s.proc.Name, ctx.Err())
	}
}

// Run supervises until Stop. It must be called once; if it panics, calling it
// again goes on.
func (s *Supervisor) Run() {
	tick := time.NewTicker(Tick)
	defer tick.Stop()
	for deaths := 0; ; {
		pid, done := s.running()
		started := time.Now()
		var exit wire.Exit
		if done == nil {
			exit = wire.Exit{Status: -1, Time: time.Now().UTC()}
		} else {
			var stopped bool
			if exit, stopped = s.watch(pid, done, tick.C); stopped {
				close(s.done)
				return
			}
		}
		if time.Since(started) >= Healthy {
			deaths = 0
		}
		deaths++
		pause := Pause(deaths)
		s.opts.Log.Error(s.proc.Name+" ended and is started again", "pid", pid, "status", exit.Status, "signal", exit.Signal, "pause", pause)
		s.opts.Died(exit, deaths)
		if s.pause(pause, tick.C) {
			close(s.done)
			return
		}
	}
}

// running starts the process.
func (s *Supervisor) running() (int, <-chan wire.Exit) {
	s.opts.Beat()
	pid, done, err := s.proc.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	if err != nil {
		s.opts.Log.Error("start "+s.proc.Name, "err", err)
		return 0, nil
	}
	s.pid = pid
	return pid, done
}

// watch waits for the end of the process, asked for or not.
func (s *Supervisor) watch(pid int, done <-chan wire.Exit, tick <-chan time.Time) (e wire.Exit, stopped bool) {
	defer func() {
		s.mu.Lock()
		s.pid = 0
		s.mu.Unlock()
	}()
	var kill <-chan time.Time
	stop := s.stop
	for {
		select {
		case e := <-done:
			return e, stopped
		case <-tick:
			s.opts.Beat()
		case limit := <-stop:
			stopped, stop = true, nil
			kill = time.After(limit)
			s.signal(pid, syscall.SIGTERM)
		case <-kill:
			s.opts.Log.Error(s.proc.Name + " did not end in time and is killed")
			s.signal(pid, syscall.SIGKILL)
			select {
			case e = <-done:
			case <-time.After(killGrace):
			}
			return e, true
		}
	}
}

func (s *Supervisor) signal(pid int, sig syscall.Signal) {
	if err := s.proc.Kill(pid, sig); err != nil {
		s.opts.Log.Error("signal "+s.proc.Name, "signal", sig.String(), "err", err)
	}
}

// pause waits before the next start; true if that is not to come.
func (s *Supervisor) pause(d time.Duration, tick <-chan time.Time) bool {
	over := time.After(d)
	for {
		select {
		case <-s.stop:
			return true
		case <-over:
			return false
		case <-tick:
			s.opts.Beat()
		}
	}
}
