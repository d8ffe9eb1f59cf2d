package supervise

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

// world is a kernel with one program, which lives for as long as life says.
type world struct {
	mu     sync.Mutex
	began  time.Time
	starts []time.Duration
	kills  []syscall.Signal
	beats  int
	deaths []int

	life     func(n int) time.Duration // of the n-th process; negative: it cannot be started
	ignores  bool                      // SIGTERM
	current  chan wire.Exit
	nextPID  int
	reported wire.Exit
}

func (w *world) supervisor() *Supervisor {
	w.began = time.Now()
	return New(Process{Name: "daemon", Start: w.start, Kill: w.kill}, Options{
		Log:  qvlog.New(io.Discard, qvlog.Options{}),
		Beat: func() { w.beats++ },
		Died: func(e wire.Exit, n int) { w.reported = e; w.deaths = append(w.deaths, n) },
	})
}

func (w *world) start() (int, <-chan wire.Exit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.starts)
	w.starts = append(w.starts, time.Since(w.began))
	life := w.life(n)
	if life < 0 {
		return 0, nil, qverr.New(qverr.NoEnt, "no such program")
	}
	done := make(chan wire.Exit, 2)
	w.current = done
	w.nextPID++
	pid := w.nextPID
	time.AfterFunc(life, func() { done <- wire.Exit{PID: pid, Status: 1} })
	return pid, done, nil
}

func (w *world) kill(pid int, sig syscall.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kills = append(w.kills, sig)
	if sig == syscall.SIGKILL || !w.ignores {
		w.current <- wire.Exit{PID: pid, Status: -1, Signal: int(sig)}
	}
	return nil
}

const forever = 1000 * time.Hour

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{life: func(n int) time.Duration {
			switch {
			case n == 0:
				return time.Hour // a good run
			case n < 12:
				return 0
			case n == 12:
				return Healthy // well again
			}
			return forever
		}}
		s := w.supervisor()
		go s.Run()
		time.Sleep(2 * time.Hour)
		if err := s.Stop(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		var gaps []time.Duration
		for i := 1; i < len(w.starts); i++ {
			gaps = append(gaps, w.starts[i]-w.starts[i-1])
		}
		ms := time.Millisecond
		want := []time.Duration{time.Hour, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 16000 * ms, LastPause, LastPause, LastPause, LastPause, LastPause, Healthy}
		if !slices.Equal(gaps, want) {
			t.Errorf("between starts: %v\nwant %v", gaps, want)
		}
		if s.Restarts() != len(w.starts)-1 || s.PID() != 0 {
			t.Errorf("%d restarts, pid %d", s.Restarts(), s.PID())
		}
		if got := w.deaths[len(w.deaths)-1]; got != 1 {
			t.Errorf("a good run did not reset the count: %v", w.deaths)
		}
		if w.beats < int(2*time.Hour/Tick) {
			t.Errorf("%d beats in two hours", w.beats)
		}
	})
}

func TestProgramThatCannotBeStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{life: func(n int) time.Duration {
			if n < 3 {
				return -1
			}
			return forever
		}}
		s := w.supervisor()
		go s.Run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.starts) != 4 || s.PID() != 1 {
			t.Errorf("starts %v, pid %d", w.starts, s.PID())
		}
		_ = s.Stop(t.Context(), time.Minute)
	})
}

func TestStop(t *testing.T) {
	for _, c := range []struct {
		name    string
		life    time.Duration
		ignores bool
		kills   []syscall.Signal
		took    time.Duration
	}{
		{"obeys", forever, false, []syscall.Signal{syscall.SIGTERM}, 0},
		{"ignores", forever, true, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}, 90 * time.Second},
		{"pausing", 0, false, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{life: func(int) time.Duration { return c.life }, ignores: c.ignores}
				s := w.supervisor()
				go s.Run()
				time.Sleep(100 * time.Second)
				begin := time.Now()
				if err := s.Stop(t.Context(), 90*time.Second); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != c.took || !slices.Equal(w.kills, c.kills) {
					t.Errorf("took %v, signals %v", took, w.kills)
				}
				n := len(w.starts)
				time.Sleep(time.Hour)
				synctest.Wait()
				if len(w.starts) != n {
					t.Error("started again after Stop")
				}
			})
		})
	}
}

func TestStopHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{life: func(int) time.Duration { return forever }, ignores: true}
		s := w.supervisor()
		go s.Run()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Stop(ctx, time.Minute); !errors.Is(err, qverr.Timeout) {
			t.Errorf("%v", err)
		}
		_ = s.Stop(t.Context(), 0)
	})
}
