package seq

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

func results(t *testing.T, steps []Step) map[string]Result {
	t.Helper()
	start := time.Now()
	got := make(map[string]Result)
	err := Run(t.Context(), steps, func() time.Duration { return time.Since(start) }, func(r Result) { got[r.Name] = r })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func ok(context.Context) error { return nil }

func TestOrderAndParallelism(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleep := func(d time.Duration) func(context.Context) error {
			return func(context.Context) error { time.Sleep(d); return nil }
		}
		got := results(t, []Step{
			{Name: "last", After: []string{"slow", "fast"}, Run: ok},
			{Name: "slow", Run: sleep(3 * time.Second)},
			{Name: "fast", Run: sleep(time.Second)},
			{Name: "second", Needs: []string{"fast"}, Run: sleep(time.Second)},
		})
		for name, want := range map[string][2]time.Duration{
			"slow": {0, 3 * time.Second}, "fast": {0, time.Second},
			"second": {time.Second, time.Second}, "last": {3 * time.Second, 0},
		} {
			if r := got[name]; r.Start != want[0] || r.Took != want[1] || r.Err != nil {
				t.Errorf("%s: start %v took %v (%v), want %v", name, r.Start, r.Took, r.Err, want)
			}
		}
	})
}

func TestFailureBlocksOnlyWhoNeedsIt(t *testing.T) {
	var ran atomic.Int32
	count := func(context.Context) error { ran.Add(1); return nil }
	got := results(t, []Step{
		{Name: "bad", Run: func(context.Context) error { return qverr.New(qverr.NoDev, "no disk") }},
		{Name: "needs", Needs: []string{"bad"}, Run: count},
		{Name: "after", After: []string{"bad", "needs"}, Run: count},
		{Name: "panics", Run: func(context.Context) error { panic("ouch") }},
	})
	if ran.Load() != 1 {
		t.Errorf("%d steps ran, want only the one that merely comes after", ran.Load())
	}
	if !errors.Is(got["needs"].Err, qverr.NoDev) {
		t.Errorf("needs: %v", got["needs"].Err)
	}
	if got["after"].Err != nil {
		t.Errorf("after: %v", got["after"].Err)
	}
	if !errors.Is(got["panics"].Err, qverr.Generic) {
		t.Errorf("panics: %v", got["panics"].Err)
	}
}

func TestQuiet(t *testing.T) {
	nice := make(map[string]int)
	step := func(name string) func(context.Context) error {
		return func(context.Context) error {
			raw, _ := unix.Getpriority(unix.PRIO_PROCESS, 0) // this thread's, as 20 - nice
			nice[name] = 20 - raw
			return qverr.NoDev
		}
	}
	got := results(t, []Step{{Name: "quiet", Quiet: true, Run: step("quiet")}, {Name: "loud", After: []string{"quiet"}, Run: step("loud")}})
	if nice["quiet"] != 19 || nice["loud"] == 19 || !errors.Is(got["quiet"].Err, qverr.NoDev) {
		t.Errorf("%v, %+v", nice, got)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		got := results(t, []Step{
			{Name: "hangs", Limit: 2 * time.Second, Run: func(context.Context) error { <-release; return nil }},
			{Name: "obeys", Limit: time.Second, Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "next", After: []string{"hangs"}, Run: ok},
		})
		close(release)
		if r := got["hangs"]; !errors.Is(r.Err, qverr.Timeout) || r.Took != 2*time.Second {
			t.Errorf("hangs: %v after %v", r.Err, r.Took)
		}
		if r := got["obeys"]; qverr.CodeOf(r.Err) != qverr.Timeout {
			t.Errorf("obeys: %v", r.Err)
		}
		if r := got["next"]; r.Err != nil || r.Start != 2*time.Second {
			t.Errorf("next: %+v", r)
		}
	})
}

func TestCheck(t *testing.T) {
	for name, steps := range map[string][]Step{
		"twice":   {{Name: "a"}, {Name: "a"}},
		"unknown": {{Name: "a", After: []string{"b"}}},
		"cycle":   {{Name: "a", After: []string{"b"}}, {Name: "b", Needs: []string{"c"}}, {Name: "c", After: []string{"a"}}},
		"itself":  {{Name: "a", Needs: []string{"a"}}},
	} {
		if Check(steps) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Check(slices.Repeat([]Step{{Name: "a"}}, 1)); err != nil {
		t.Error(err)
	}
}
