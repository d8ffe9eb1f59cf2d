package vm

import (
	"context"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

const (
	restartMin = time.Second
	restartMax = time.Minute
	// restartFresh: a VM that ran so long starts again without waiting longer.
	restartFresh = 10 * time.Minute
)

// watch waits for the end of a VM process and records it.
func (s *Service) watch(m *machine, r *run) {
	defer s.wg.Done()
	report, err := r.proc.Wait(s.ctx)
	if err != nil {
		return // the daemon goes, the VM stays
	}
	s.ended(m, r, report)
}

// ended records how a VM process ended, and starts it again if its policy says
// so.
func (s *Service) ended(m *machine, r *run, report vmm.ExitReport) {
	s.removePorts(m)
	s.mu.Lock()
	lent := m.rec.Lent
	s.mu.Unlock()
	s.returnFunctions(m.rec.Config.Name, lent)
	s.mu.Lock()
	defer s.mu.Unlock()
	ev, reason, problem := explain(report)
	m.rec.PID = 0
	if ev == EvCrash {
		s.keepCrash(m, report)
	}
	if m.op != nil && (m.op.action == ActStop || m.op.action == ActForceStop) {
		m.through()
	}
	s.leave(m, ev, reason, problem)
	asked := r.asked
	m.run = nil
	close(r.done)
	if ev == EvCrash {
		s.Log.Error("VM "+m.rec.Config.Name+" crashed", "err", qverr.New(qverr.Code(problem.Code), "%s", reason))
	}
	if !asked && !s.closing && wantsRestart(m.rec.Config.Restart, ev) {
		s.wg.Add(1)
		go s.restart(m, ev)
	}
}

// leave enters the state after a process; it needs the lock.
func (s *Service) leave(m *machine, ev Action, reason string, problem initapi.Problem) {
	m.limit, m.rec.Starting, m.rec.Measured, m.rec.Lent = 0, false, nil, nil
	state, err := next(m.rec.Config.Name, m.rec.State, ev)
	if err != nil { // a start that was not recorded
		state = spec.VMStateSTOPPED
		if ev == EvCrash {
			state = spec.VMStateCRASHED
		}
	}
	s.enter(m, state, reason, problem)
}

// explain turns an exit report into what happens to the VM.
func explain(report vmm.ExitReport) (Action, string, initapi.Problem) {
	switch {
	case report.Reason.Crashed():
		code := report.Code
		if code == qverr.Success {
			code = qverr.Generic
		}
		return EvCrash, report.Message, problemOf(qverr.New(code, "%s", report.Message))
	case report.Reason == vmm.ReasonGuestOff:
		return EvGuestOff, report.Message, initapi.Problem{}
	}
	return EvQuit, report.Message, initapi.Problem{}
}

func wantsRestart(policy spec.VMConfigRestart, ev Action) bool {
	switch policy {
	case spec.VMConfigRestartAlways:
		return true
	case spec.VMConfigRestartOnCrash:
		return ev == EvCrash
	}
	return false
}

// pause before restart number n, doubling.
func restartPause(n int) time.Duration {
	if n > 6 {
		return restartMax
	}
	return min(restartMin<<n, restartMax)
}

// restart starts a VM that ended by itself, again and again with growing
// pauses until it runs, or somebody else has done something with it.
func (s *Service) restart(m *machine, ev Action) {
	defer s.wg.Done()
	s.mu.Lock()
	name, n, since := m.rec.Config.Name, m.rec.Restarts, m.rec.Since
	if m.rec.StartedAt != nil && time.Since(*m.rec.StartedAt) > restartFresh {
		n = 0
	}
	s.mu.Unlock()
	for ; ; n++ {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(restartPause(n)):
		}
		s.mu.Lock()
		untouched := s.vms[name] == m && m.rec.Since.Equal(since) && m.op == nil && !s.closing
		s.mu.Unlock()
		if !untouched {
			return
		}
		s.Log.Info("VM "+name+" is started again", "after", string(ev))
		t, err := s.start(s.ctx, name, "", true)
		if err == nil {
			t, err = s.Tasks.Wait(s.ctx, t.ID)
		}
		if err == nil && t.State == spec.TaskStateSucceeded {
			return
		}
		if err != nil {
			s.Log.Error("start VM "+name+" again", "err", err)
		}
	}
}

// Adopt finds the VMs that run already, and what became of those that ended
// while no daemon was there. bootID is the node's: after a reboot nothing runs.
func (s *Service) Adopt(ctx context.Context, bootID string) {
	s.mu.Lock()
	s.bootID = bootID
	var open []*machine
	for _, m := range s.vms {
		switch {
		case !hasProcess(m.rec.State) && !m.rec.Starting:
		case m.rec.BootID != bootID:
			s.leave(m, EvQuit, "the node went down", initapi.Problem{})
		default:
			open = append(open, m)
		}
	}
	s.mu.Unlock()
	done := make(chan struct{}, len(open))
	for _, m := range open {
		go func() {
			s.adopt(ctx, m)
			done <- struct{}{}
		}()
	}
	for range open {
		<-done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = true
}

func (s *Service) adopt(ctx context.Context, m *machine) {
	name := m.rec.Config.Name
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	proc, info, err := s.VMM.Adopt(ctx, vmm.AdoptSpec{Name: name, RunDir: s.RunDir, Cgroup: s.cgroup(name), Exit: s.exitOf})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		state := spec.VMStateRUNNING
		if info.State == vmm.StatePaused {
			state = spec.VMStatePAUSED
		}
		m.limit = vmm.MemoryLimit(int64(m.rec.Config.Memory.Size))
		s.adopted++
		s.adoptFunctions(m)
		s.Log.Info("VM "+name+" runs already", "pid", proc.PID(), "state", string(info.State))
		s.runs(m, proc, state)
	case qverr.CodeOf(err) == qverr.NoEnt:
		s.lost(m)
	default:
		m.limit = vmm.MemoryLimit(int64(m.rec.Config.Memory.Size))
		s.adoptFunctions(m)
		stuck := qverr.New(qverr.VMStuck, "VM %s: its process does not answer: %w", name, err)
		s.Log.Error("adopt VM "+name, "err", stuck)
		s.enter(m, m.rec.State, "its process does not answer", problemOf(stuck))
	}
}

// lost finds out why a VM ended while no daemon was there; it needs the lock.
func (s *Service) lost(m *machine) {
	name := m.rec.Config.Name
	words, _ := vmm.ReadExit(s.RunDir, name)
	status, signal := -1, 0
	if words.Reason != "" {
		status = words.Status
	}
	if st, sig, err := s.exitOf(m.rec.PID); err == nil {
		status, signal = st, sig
	}
	report := vmm.Report(status, signal, words)
	ev, reason, problem := explain(report)
	if ev == EvCrash {
		s.keepCrash(m, report)
	}
	if err := s.VMM.Cleanup(s.ctx, s.RunDir, name, s.cgroup(name)); err != nil {
		s.Log.Error("clean up after VM "+name, "err", err)
	}
	s.returnFunctions(name, m.rec.Lent)
	m.rec.PID = 0
	wasStarting := m.rec.Starting && !hasProcess(m.rec.State)
	s.leave(m, ev, reason, problem)
	if !wasStarting && wantsRestart(m.rec.Config.Restart, ev) {
		s.wg.Add(1)
		go s.restart(m, ev)
	}
}

// exitOf asks PID 1 how a process ended.
func (s *Service) exitOf(pid int) (status, signal int, err error) {
	if s.Exit == nil || pid <= 0 {
		return 0, 0, qverr.New(qverr.NoEnt, "nobody knows how process %d ended", pid)
	}
	ctx, cancel := context.WithTimeout(s.ctx, callTime)
	defer cancel()
	e, err := s.Exit(ctx, pid)
	if err != nil {
		return 0, 0, err
	}
	return e.Status, e.Signal, nil
}
