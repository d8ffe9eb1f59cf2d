package reap

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// running makes this process the reaper of its descendants, as PID 1 is.
func running(t *testing.T) *Reaper {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r := New()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx, signals) }()
	t.Cleanup(func() {
		cancel()
		<-done
		signal.Stop(signals)
	})
	return r
}

func sh(t *testing.T, r *Reaper, script string, files ...uintptr) (int, <-chan wire.Exit) {
	t.Helper()
	if len(files) == 0 {
		files = []uintptr{0, 1, 2}
	}
	pid, done, err := r.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Env: os.Environ(), Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return pid, done
}

func TestStatuses(t *testing.T) {
	r := running(t)
	for script, want := range map[string]wire.Exit{
		"exit 0":        {},
		"exit 42":       {Status: 42},
		"kill -9 $$":    {Status: -1, Signal: 9},
		"kill -TERM $$": {Status: -1, Signal: 15},
	} {
		pid, done := sh(t, r, script)
		e := <-done
		if e.PID != pid || e.Status != want.Status || e.Signal != want.Signal || e.Time.IsZero() {
			t.Errorf("%s: %+v", script, e)
		}
		if kept, ok := r.Exit(pid); !ok || kept != e {
			t.Errorf("%s: remembered %+v %v", script, kept, ok)
		}
	}
	_, _, err := r.Start("/does/not/exist", []string{"x"}, &syscall.ProcAttr{})
	if !errors.Is(err, qverr.NoEnt) {
		t.Errorf("start of nothing: %v", err)
	}
}

// Thousands of orphans end at the same time as children that are waited for:
// none may be missed, and every waiter gets its own.
func TestOrphansUnderLoad(t *testing.T) {
	r := running(t)
	const parents, orphans = 20, 150
	numbers, numbersIn := pipe(t)
	hold, release := pipe(t)
	// The parent ends at once, its children when the pipe is closed: all together.
	script := `i=0; while [ $i -lt ` + strconv.Itoa(orphans) + ` ]; do ( read x <&3; exit 5 ) >&- & echo $!; i=$((i+1)); done; exit 7`
	for range parents {
		_, done := sh(t, r, script, 0, numbersIn.Fd(), 2, hold.Fd())
		if e := <-done; e.Status != 7 {
			t.Errorf("parent: %+v", e)
		}
	}
	_ = numbersIn.Close()
	var pids []int
	for s := bufio.NewScanner(numbers); s.Scan(); {
		n, err := strconv.Atoi(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, n)
	}
	if len(pids) != parents*orphans {
		t.Fatalf("%d orphans, want %d", len(pids), parents*orphans)
	}
	var wg sync.WaitGroup
	_ = release.Close()
	for range 50 { // meanwhile children of our own come and go
		_, done := sh(t, r, "exit 9")
		wg.Go(func() {
			if e := <-done; e.Status != 9 {
				t.Errorf("child: %+v", e)
			}
		})
	}
	for _, pid := range pids {
		wg.Go(func() {
			if e, err := r.Wait(t.Context(), pid); err != nil || e.Status != 5 {
				t.Errorf("orphan %d: %+v %v", pid, e, err)
			}
		})
	}
	wg.Wait()
	<-r.Idle()
}

func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	return read, write
}

func TestWait(t *testing.T) {
	r := running(t)
	read, write := pipe(t)
	pid, done := sh(t, r, "read x; exit 3", read.Fd(), 1, 2)
	_ = read.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Wait(ctx, pid); !errors.Is(err, qverr.Timeout) {
		t.Errorf("of a living process: %v", err)
	}
	got := make(chan wire.Exit)
	go func() { e, _ := r.Wait(t.Context(), pid); got <- e }()
	_ = write.Close()
	if e := <-got; e.Status != 3 {
		t.Errorf("%+v", e)
	}
	<-done
	if e, err := r.Wait(t.Context(), pid); err != nil || e.Status != 3 {
		t.Errorf("afterwards: %+v %v", e, err)
	}
	if _, err := r.Wait(t.Context(), 1<<22); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("of nobody: %v", err)
	}
	if len(r.waiters) != 0 {
		t.Errorf("waiters left: %v", r.waiters)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := New()
	for i := range 3 * Keep {
		r.ended(wire.Exit{PID: i%(2*Keep) + 1, Status: i})
	}
	if len(r.exits) != Keep || len(r.order) != Keep {
		t.Errorf("%d exits, %d numbers", len(r.exits), len(r.order))
	}
	if e, ok := r.Exit(Keep); !ok || e.Status != 3*Keep-1 {
		t.Errorf("the last one: %+v %v", e, ok)
	}
}
