package vm

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/task"
)

// Autostart starts the VMs that ask for it, in their order, each after its
// delay.
func (s *Service) Autostart(ctx context.Context) {
	s.mu.Lock()
	var list []spec.VMConfig
	for _, m := range s.vms {
		if m.rec.Config.Autostart.Enabled && !hasProcess(m.rec.State) {
			list = append(list, m.rec.Config)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b spec.VMConfig) int {
		return cmp.Or(cmp.Compare(a.Autostart.Order, b.Autostart.Order), cmp.Compare(a.Name, b.Name))
	})
	for _, c := range list {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(c.Autostart.Delay) * time.Second):
		}
		t, err := s.Start(ctx, c.Name, "")
		if err != nil {
			s.Log.Error("autostart of VM "+c.Name, "err", err)
			continue
		}
		_, _ = s.Tasks.Wait(ctx, t.ID)
	}
}

// Shutdown asks all guests to power off, waits until ctx is over and ends the
// rest. Nothing can be started any more.
func (s *Service) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	var all []*machine
	for _, m := range s.vms {
		if m.run != nil {
			all = append(all, m)
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range all {
		wg.Go(func() { s.shutdownOne(ctx, m) })
	}
	wg.Wait()
}

func (s *Service) shutdownOne(ctx context.Context, m *machine) {
	s.mu.Lock()
	r, paused := m.run, m.rec.State == spec.VMStatePAUSED
	s.mu.Unlock()
	if r == nil {
		return
	}
	s.ask(r, true)
	control := r.proc.Control()
	if paused {
		if err := control.Resume(ctx); err != nil {
			s.Log.Warn("resume VM "+m.rec.Config.Name+" to stop it", "err", err)
		}
	}
	press := time.NewTicker(pressEvery)
	defer press.Stop()
	for {
		_ = control.PowerButton(ctx) // what does not react is ended below
		select {
		case <-r.done:
			return
		case <-press.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.Log.Warn("the guest of VM " + m.rec.Config.Name + " did not power off in time and is ended")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), quitTime+killTime)
	defer cancel()
	if err := s.kill(end, m, r, &task.Progress{}); err != nil {
		s.Log.Error("end VM "+m.rec.Config.Name, "err", err)
	}
}
