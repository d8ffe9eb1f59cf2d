package manage

import (
	"strings"
	"testing"
	"time"

	"quantavirt/internal/initapi/wire"
)

// life is a manager and a clock.
type life struct {
	t   *testing.T
	m   Manager
	now time.Duration
}

func (l *life) start(want Program) {
	l.t.Helper()
	l.now += time.Second
	if got := l.m.Start(l.now); got != want {
		l.t.Fatalf("program %d is started, want %d", got, want)
	}
}

func (l *life) end(status int, want bool) {
	l.t.Helper()
	l.now += time.Second
	if _, got := l.m.Ended(wire.Exit{Status: status}, "Error: no", l.now); got != want {
		l.t.Fatalf("another program comes: %v, want %v", got, want)
	}
}

// toRescue lets the daemon fail until the listener comes.
func (l *life) toRescue(tries int) {
	l.t.Helper()
	for i := range tries {
		l.start(Daemon)
		l.end(1, i == tries-1)
	}
	l.start(Rescue)
}

func TestDaemonThatCannotStart(t *testing.T) {
	l := &life{t: t}
	l.toRescue(Tries)
	r := l.m.Rescue()
	if r == nil || !r.Active || !strings.Contains(r.Reason, "5 times") || !strings.HasSuffix(r.Reason, "Error: no") || r.RetrySeconds != 300 {
		t.Fatalf("%+v", r)
	}
	if n := l.m.Restarts(); n != Tries-1 {
		t.Errorf("%d restarts", n)
	}
	l.end(0, true)
	l.toRescue(RescueTries)
	if r := l.m.Rescue(); r.RetrySeconds != 600 {
		t.Errorf("second rescue: %+v", r)
	}
	l.end(0, true)
	l.start(Daemon)
	l.m.Ready(l.now)
	if r := l.m.Rescue(); r == nil || r.Active {
		t.Errorf("after the rescue: %+v", r)
	}
	l.now += Lived
	l.end(1, false)
	l.toRescue(Tries)
	if r := l.m.Rescue(); r.RetrySeconds != 300 {
		t.Errorf("rescue after a good start: %+v", r)
	}
	for range 10 {
		l.end(0, true)
		l.toRescue(RescueTries)
	}
	if r := l.m.Rescue(); r.RetrySeconds != int(LastRetry.Seconds()) {
		t.Errorf("eleventh rescue: %+v", r)
	}
}

// Daemons that were ready, or end rarely, are just started again.
func TestDaemonThatLives(t *testing.T) {
	l := &life{t: t}
	for range 3 * Tries {
		l.start(Daemon)
		l.m.Ready(l.now)
		l.m.Ready(l.now + Lived) // of no account: it is ready
		l.now += Lived
		l.end(1, false)
	}
	for range 3 * Tries {
		l.start(Daemon)
		l.now += time.Minute
		l.end(1, false)
	}
	if l.m.Rescue() != nil {
		t.Error("there was a rescue")
	}
}

// A daemon that becomes ready and dies at once, again and again, cannot start
// either, nor does it end a rescue.
func TestDaemonThatDiesWhenReady(t *testing.T) {
	l := &life{t: t}
	die := func(status int, changed bool) {
		t.Helper()
		l.start(Daemon)
		l.m.Ready(l.now)
		l.now += Lived - 2*time.Second
		l.end(status, changed)
	}
	for range 3 * Tries {
		die(0, false) // asked to end: somebody restarts it
	}
	l.start(Daemon)
	l.m.Ready(l.now)
	if _, changed := l.m.Ended(wire.Exit{Signal: 9}, "", l.now); changed {
		t.Fatal("one kill is enough")
	}
	for i := range Tries - 1 {
		die(1, i == Tries-2)
	}
	l.start(Rescue)
	if r := l.m.Rescue(); !r.Active || !strings.Contains(r.Reason, "5 times without having been ready for 10s") {
		t.Fatalf("%+v", r)
	}
	l.end(0, true)
	for i := range RescueTries {
		die(1, i == RescueTries-1)
	}
	l.start(Rescue)
	if r := l.m.Rescue(); r.RetrySeconds != 600 {
		t.Errorf("second rescue: %+v", r)
	}
}

func TestDaemonThatIsLate(t *testing.T) {
	l := &life{t: t}
	l.start(Daemon)
	if l.now += StartLimit - time.Second; l.m.Late(l.now) {
		t.Fatal("late too early")
	}
	if l.now += time.Second; !l.m.Late(l.now) {
		t.Fatal("not late")
	}
	l.end(-1, true)
	l.start(Rescue)
	if r := l.m.Rescue(); !strings.Contains(r.Reason, "not ready 3m0s after") {
		t.Errorf("%+v", r)
	}
	if l.now += 2 * StartLimit; l.m.Late(l.now) {
		t.Error("the listener is late")
	}
	l.end(0, true)
	l.start(Daemon)
	l.m.Ready(l.now)
	if l.now += 2 * StartLimit; l.m.Late(l.now) {
		t.Error("a daemon that is ready is late")
	}
}

// A listener that does not live either gives way to the daemon.
func TestRescueThatFails(t *testing.T) {
	l := &life{t: t}
	l.toRescue(Tries)
	l.m.Ready(l.now) // of whom?
	l.end(1, false)
	l.start(Rescue)
	l.end(1, true)
	l.toRescue(RescueTries)
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ said, want string }{
		{"", ""}, {"one\ntwo\n\n", "two"}, {"one\nhalf", "one"},
		{"Error: QV_ERR_IO (-1): no\nbye\n", "Error: QV_ERR_IO (-1): no"},
		{"panic: oops\n\ngoroutine 1 [running]:\nmain.main()\n", "panic: oops"},
		{strings.Repeat("x", 3*maxWords) + "\n", strings.Repeat("x", maxWords)},
	} {
		for _, size := range []int{1, 1 << 20} {
			var w Words
			for rest := []byte(c.said); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				_, _ = w.Write(rest[:min(size, len(rest))])
			}
			if got := w.String(); got != c.want {
				t.Errorf("after %.40q: %.60q", c.said, got)
			}
			w.Forget()
			if w.String() != "" {
				t.Error("not forgotten")
			}
		}
	}
}
