package vm

import (
	"context"
	"errors"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/task"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

const (
	defaultStopTime = 60 * time.Second
	// pressEvery repeats the power button: a guest that is still booting does
	// not notice the first press.
	pressEvery = 5 * time.Second
	// startTime bounds the way to the first guest instruction.
	startTime = 2 * time.Minute
	quitTime  = 3 * time.Second
	killTime  = 10 * time.Second
	callTime  = 10 * time.Second
)

// free refuses an action that is not legal now, or while another is at work.
func (m *machine) free(a Action) error {
	if _, err := next(m.rec.Config.Name, m.rec.State, a); err != nil {
		return err
	}
	if m.op != nil {
		return qverr.New(qverr.Busy, "VM %s: %s is under way", m.rec.Config.Name, m.op.action).With("task", m.op.task)
	}
	return nil
}

// launch turns a claimed action into its task; it needs the lock. fn runs
// without it.
func (s *Service) launch(m *machine, a Action, kind, requestID string, cancellable bool, fn func(context.Context, *task.Progress) error) (spec.Task, error) {
	name := m.rec.Config.Name
	ctx, cancel := context.WithCancel(s.ctx)
	op := &operation{action: a, cancel: cancel, done: make(chan struct{})}
	m.op = op
	t, err := s.Tasks.Start(task.Spec{Kind: kind, Target: target(name), RequestID: requestID, Cancellable: cancellable},
		func(taskCtx context.Context, p *task.Progress) error {
			defer context.AfterFunc(taskCtx, cancel)()
			defer s.end(m, op)
			return fn(ctx, p)
		})
	if err != nil {
		cancel()
		m.op = nil
		return spec.Task{}, err
	}
	op.task = t.ID
	return t, nil
}

// through lets the next action begin, because the state that the present one
// leads to is about to show: who sees it may act on it. It needs the lock.
func (m *machine) through() { m.op = nil }

func (s *Service) end(m *machine, op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.cancel()
	if m.op == op {
		m.op = nil
	}
	close(op.done)
}

// control runs a short call to the VM process as a task, and enters the state
// that the table names when it succeeds.
func (s *Service) control(name string, a Action, kind, requestID string, failed qverr.Code, call func(context.Context, Control) error) (spec.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.claim(name, a)
	if err != nil {
		return spec.Task{}, err
	}
	r := m.run
	if r == nil {
		return spec.Task{}, stuck(name)
	}
	return s.launch(m, a, kind, requestID, false, func(ctx context.Context, _ *task.Progress) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := call(ctx, r.proc.Control()); err != nil {
			return coded(failed, err, "VM %s: %s", name, a)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		state, err := next(name, m.rec.State, a)
		if err != nil { // it ended meanwhile
			return err
		}
		m.through()
		s.enter(m, state, "", initapi.Problem{})
		return nil
	})
}

// coded keeps the code of what failed and gives others the action's own.
func coded(code qverr.Code, err error, format string, args ...any) error {
	if c := qverr.CodeOf(err); c != qverr.Generic {
		code = c
	}
	e := qverr.New(code, format+": %w", append(args, err)...)
	for k, v := range qverr.From(err).Details {
		_ = e.With(k, v)
	}
	e.Hint = qverr.From(err).Hint
	return e
}

func stuck(name string) error {
	return qverr.New(qverr.VMStuck, "VM %s: its process does not answer", name)
}

// Pause stops the vCPUs.
func (s *Service) Pause(name, requestID string) (spec.Task, error) {
	return s.control(name, ActPause, "vm.pause", requestID, qverr.VMPause, func(ctx context.Context, c Control) error { return c.Pause(ctx) })
}

// Resume lets a paused VM run on.
func (s *Service) Resume(name, requestID string) (spec.Task, error) {
	return s.control(name, ActResume, "vm.resume", requestID, qverr.VMResume, func(ctx context.Context, c Control) error { return c.Resume(ctx) })
}

// Reset presses the reset button.
func (s *Service) Reset(name, requestID string) (spec.Task, error) {
	return s.control(name, ActReset, "vm.reset", requestID, qverr.Generic, func(ctx context.Context, c Control) error { return c.Reset(ctx) })
}

// Stop asks the guest to power off and waits, at most timeout (0: a minute); it
// fails with QV_ERR_TIMEOUT when the guest does not. With force the VM process
// is ended at once, also while another stop waits.
func (s *Service) Stop(name, requestID string, force bool, timeout time.Duration) (spec.Task, error) {
	a := ActStop
	if force {
		a = ActForceStop
		s.interrupt(name)
	}
	if timeout <= 0 {
		timeout = defaultStopTime
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.claim(name, a)
	if err != nil {
		return spec.Task{}, err
	}
	r := m.run
	if r == nil && !force {
		return spec.Task{}, stuck(name)
	}
	return s.launch(m, a, "vm.stop", requestID, !force, func(ctx context.Context, p *task.Progress) error {
		if force {
			return s.kill(ctx, m, r, p)
		}
		return s.powerOff(ctx, m, r, p, timeout)
	})
}

// interrupt ends a stop that waits for its guest, so that force can follow.
func (s *Service) interrupt(name string) {
	s.mu.Lock()
	m, err := s.find(name)
	var op *operation
	if err == nil && m.op != nil && m.op.action == ActStop {
		op = m.op
		op.cancel()
	}
	s.mu.Unlock()
	if op != nil {
		<-op.done
	}
}

func (s *Service) powerOff(ctx context.Context, m *machine, r *run, p *task.Progress, timeout time.Duration) error {
	name := m.rec.Config.Name
	p.Phase("waiting for the guest")
	s.ask(r, true)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	press := time.NewTicker(pressEvery)
	defer press.Stop()
	for {
		err := r.proc.Control().PowerButton(ctx)
		if err != nil && qverr.CodeOf(err) != qverr.NoEnt && ctx.Err() == nil {
			s.ask(r, false)
			return coded(qverr.VMStop, err, "VM %s: press the power button", name)
		}
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			s.ask(r, false)
			if errors.Is(ctx.Err(), context.Canceled) {
				return qverr.New(qverr.Again, "the stop of VM %s was interrupted: %w", name, ctx.Err())
			}
			return qverr.New(qverr.Timeout, "the guest of VM %s did not power off within %s", name, timeout).
				WithHint("end it with: quantavirt vm stop --force %s", name)
		case <-press.C:
		}
	}
}

func (s *Service) ask(r *run, asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.asked = asked
}

// kill ends the VM process: by its control socket, by SIGKILL, and, if the
// daemon has lost it, by its cgroup.
func (s *Service) kill(ctx context.Context, m *machine, r *run, p *task.Progress) error {
	name := m.rec.Config.Name
	p.Phase("ending the VM process")
	if r == nil {
		if err := s.VMM.Cleanup(ctx, s.RunDir, name, s.cgroup(name)); err != nil {
			return coded(qverr.VMStuck, err, "end VM %s", name)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.returnFunctions(name, m.rec.Lent)
		s.leave(m, EvQuit, "ended on request", initapi.Problem{})
		return nil
	}
	s.ask(r, true)
	quit, cancel := context.WithTimeout(ctx, quitTime)
	err := r.proc.Control().Quit(quit)
	if err == nil {
		select {
		case <-r.done:
		case <-quit.Done():
		}
	}
	cancel()
	select {
	case <-r.done:
		return nil
	default:
	}
	if err := r.proc.Kill(); err != nil {
		return coded(qverr.VMStop, err, "kill VM %s", name)
	}
	select {
	case <-r.done:
		return nil
	case <-time.After(killTime):
		return qverr.New(qverr.VMStuck, "the process of VM %s does not end", name)
	}
}

// Destroy forgets a VM; with force it is ended first if it runs. Its disks stay.
func (s *Service) Destroy(name, requestID string, force bool) (spec.Task, error) {
	a := ActDestroy
	if force {
		a = ActForceDestroy
		s.interrupt(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.claim(name, a)
	if err != nil {
		return spec.Task{}, err
	}
	r, runs := m.run, hasProcess(m.rec.State)
	return s.launch(m, a, "vm.destroy", requestID, false, func(ctx context.Context, p *task.Progress) error {
		if runs {
			if err := s.kill(ctx, m, r, p); err != nil {
				return err
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.forget(m); err != nil {
			return coded(qverr.VMDestroy, err, "destroy VM %s", name)
		}
		s.Bus.Publish(event.Event{Kind: "vm.state", Object: target(name), Data: spec.VMStateDESTROYED})
		s.Log.Info("VM " + name + " is destroyed")
		return nil
	})
}
