// Package seq runs a table of named steps: each as soon as the ones it names
// have ended, the rest at the same time. A step that fails, panics or takes too
// long is reported and holds up nobody who can do without it.
package seq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"quantavirt/init/guard"
	"quantavirt/init/quiet"
	"quantavirt/internal/qverr"
)

// DefaultLimit is how long a step may take if it does not say.
const DefaultLimit = 30 * time.Second

// Step is one row of the table.
type Step struct {
	Name string
	// After names steps that must have ended, well or not.
	After []string
	// Needs names steps that must have succeeded; if one has not, this step
	// fails without having been run.
	Needs []string
	// Limit is when the step counts as failed and the others go on without it;
	// 0 means DefaultLimit. Its context ends then.
	Limit time.Duration
	// Quiet runs the step with the lowest priority: see package quiet.
	Quiet bool
	Run   func(context.Context) error
}

// Result is how a step ended.
type Result struct {
	Name  string
	Start time.Duration // on the clock given to Run
	Took  time.Duration
	Err   error
}

// Check refuses a table with two steps of one name, a dependency that is not
// in it, or a cycle.
func Check(steps []Step) error {
	byName := make(map[string]Step, len(steps))
	for _, s := range steps {
		if _, ok := byName[s.Name]; ok {
			return fmt.Errorf("two steps are named %q", s.Name)
		}
		byName[s.Name] = s
	}
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		if slices.Contains(path, name) {
			return fmt.Errorf("steps wait for each other: %v", append(path, name))
		}
		s := byName[name]
		for _, d := range slices.Concat(s.After, s.Needs) {
			if _, ok := byName[d]; !ok {
				return fmt.Errorf("step %q waits for %q, which is not there", name, d)
			}
			if err := visit(d, append(path, name)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range steps {
		if err := visit(s.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// run is a sequence under way.
type run struct {
	now   func() time.Duration
	ended func(Result)
	done  map[string]chan struct{}

	report sync.Mutex

	mu   sync.Mutex
	errs map[string]error
}

// Run runs the steps and returns when all have ended. ended is called at the
// end of each, from several goroutines but never at the same time.
func Run(ctx context.Context, steps []Step, now func() time.Duration, ended func(Result)) error {
	if err := Check(steps); err != nil {
		return qverr.New(qverr.Generic, "table of boot steps: %w", err)
	}
	r := &run{now: now, ended: ended, done: make(map[string]chan struct{}), errs: make(map[string]error)}
	for _, s := range steps {
		r.done[s.Name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, s := range steps {
		wg.Go(func() { r.step(ctx, s) })
	}
	wg.Wait()
	return nil
}

func (r *run) step(ctx context.Context, s Step) {
	for _, d := range slices.Concat(s.After, s.Needs) {
		<-r.done[d]
	}
	res := Result{Name: s.Name, Start: r.now()}
	res.Err = r.missing(s)
	if res.Err == nil {
		res.Err = limited(ctx, s)
	}
	res.Took = r.now() - res.Start
	r.mu.Lock()
	r.errs[s.Name] = res.Err
	r.mu.Unlock()
	close(r.done[s.Name])
	// Those that waited do not wait for the report.
	r.report.Lock()
	defer r.report.Unlock()
	r.ended(res)
}

// missing is the failure of a step that s needs.
func (r *run) missing(s Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range s.Needs {
		if err := r.errs[d]; err != nil {
			return qverr.New(qverr.CodeOf(err), "not tried, as step %s failed: %w", d, err)
		}
	}
	return nil
}

// limited runs a step for its time. A step that does not end is left behind.
func limited(ctx context.Context, s Step) error {
	limit := s.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	end := make(chan error, 1)
	call := guard.Call
	if s.Quiet {
		call = quiet.Do
	}
	go func() { end <- call("step "+s.Name, func() error { return s.Run(ctx) }) }()
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-end:
		return err
	default:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return qverr.New(qverr.Timeout, "step %s did not end within %v", s.Name, limit)
		}
		return qverr.New(qverr.Again, "step %s: %w", s.Name, ctx.Err())
	}
}
