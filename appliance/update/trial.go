package update

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

const (
	// lookEvery is how often a system on trial is looked at.
	lookEvery = time.Second
	// rebootAgain is how long PID 1 has to reboot before it is asked again.
	rebootAgain = 3 * time.Minute
)

// Reasons of a system that used its try up and said nothing.
const (
	hung     = "reset or hung before it was blessed"
	dogBit   = "hung before it was blessed: the hardware watchdog reset the node"
	panicked = "its kernel panicked before it was blessed"
	lost     = "its image was lost when the power went"
)

// Start learns from PID 1's boot steps what boot this is and does what follows:
// a system on trial is watched until it is blessed or given up; the slot before,
// back after a failed trial, notes why. It returns when that is done or ctx ends.
// It must be called once.
func (s *Service) Start(ctx context.Context, boot initapi.Boot) {
	s.mu.Lock()
	s.boot = boot
	s.mu.Unlock()
	close(s.known)
	if _, ok := s.where(); !ok {
		s.restore(ctx)
		return
	}
	var trial *slot.Info
	var gone bool // given up, and not rebooted yet
	err := s.disk(false, func(w where, d *disk) error {
		i := d.infos[w.running]
		gone = i.State == slot.StateFailed && i.Trial != nil && d.boots() != w.running
		if on, _ := d.trial(w.running); on || gone {
			i.Sequence = w.running
			trial = &i
		}
		return nil
	})
	if err != nil {
		s.Log.Error("look at the slots", "err", err)
		return
	}
	switch {
	case trial == nil:
		s.settle(ctx)
	case gone:
		s.fail(ctx, *trial, trial.Reason)
	case s.Broken != "":
		s.fail(ctx, *trial, s.Broken)
	default:
		var wg sync.WaitGroup
		wg.Go(func() { s.restore(ctx) })
		s.watch(ctx, *trial)
		wg.Wait()
	}
}

// settle is for a boot that is no trial: what was tried before and is not
// blessed has failed, and PID 1 need not watch.
func (s *Service) settle(ctx context.Context) {
	if s.Init != nil {
		if err := s.Init.Blessed(ctx); err != nil {
			s.Log.Warn("tell PID 1 that this boot is no trial", "err", err)
		}
	}
	if err := s.disk(false, s.needsSettling); err == nil {
		s.restore(ctx)
		return
	}
	text, files := lastWords(s.PStore)
	err := s.disk(true, func(w where, d *disk) error { return s.settleDisk(w, d, text) })
	if err != nil {
		s.Log.Error("note how the last update went", "err", err)
		return
	}
	for _, f := range files { // the firmware's memory is small
		if err := os.Remove(f); err != nil {
			s.Log.Warn("remove a panic from the firmware's memory", "err", err)
		}
	}
	s.restore(ctx)
}

// needsSettling is an error if settleDisk has something to do.
func (s *Service) needsSettling(w where, d *disk) error {
	rec, err := s.record()
	if err != nil {
		return err
	}
	for seq, i := range d.infos {
		if s.used(w, d, i) || seq == w.running && i.State == slot.StateTry || s.unknown(rec, i) {
			return qverr.New(qverr.Again, "slot %d", seq)
		}
	}
	return nil
}

// used says that a slot was armed in an earlier boot and has used its try up.
func (s *Service) used(w where, d *disk, i slot.Info) bool {
	on, booted := d.trial(i.Sequence)
	if i.State != slot.StateTry || i.Sequence == w.running || i.Trial == nil || i.Trial.BootID == w.bootID {
		return false
	}
	return on && booted || d.isLost(i.Sequence)
}

// unknown says that a slot failed its trial and the store does not know.
func (s *Service) unknown(rec record, i slot.Info) bool {
	return i.State == slot.StateFailed && i.Trial != nil &&
		!slices.ContainsFunc(rec.Failures, func(f failure) bool { return f.SHA256 == i.SHA256 && f.Version == i.Version && f.Reason == i.Reason })
}

// settleDisk notes failures in the slots and in the store.
func (s *Service) settleDisk(w where, d *disk, panicText string) error {
	for _, seq := range d.sequences() {
		i, ok := d.infos[seq]
		switch {
		case !ok:
			continue
		case s.used(w, d, i):
			if err := d.giveUp(seq, s.silent(d, seq, panicText), panicText); err != nil {
				return err
			}
			i = d.infos[seq]
		case seq == w.running && i.State == slot.StateTry:
			// The power went between its blessing and the note of it.
			if err := d.bless(seq); err != nil {
				return err
			}
			if err := s.blessed(i); err != nil {
				return err
			}
			continue
		}
		if rec, err := s.record(); err != nil {
			return err
		} else if !s.unknown(rec, i) {
			continue
		}
		s.Log.Error("an update failed, and the slot before runs again", "err",
			qverr.New(qverr.State, "version %s in slot %s: %s", i.Version, slot.Digits(seq), i.Reason), "running", slot.Digits(w.running))
		err := s.change(func(r *record) {
			r.fail(failure{Version: i.Version, SHA256: i.SHA256, Reason: i.Reason, Time: time.Now().UTC()})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// silent is why a system failed whose daemon could not say so.
func (s *Service) silent(d *disk, seq uint32, panicText string) string {
	s.mu.Lock()
	dog := s.boot.DogReset
	s.mu.Unlock()
	switch note := d.note(seq); {
	case note != "":
		return note
	case d.isLost(seq):
		return lost
	case panicText != "":
		return panicked
	case dog:
		return dogBit
	}
	if why := s.refused(d, seq); why != "" {
		return why
	}
	return hung
}

// restore starts the VMs again that ran when an update was armed, once a boot.
func (s *Service) restore(ctx context.Context) {
	rec, err := s.record()
	if err != nil {
		s.Log.Error("look for VMs to start again", "err", err)
		return
	}
	w, _ := s.where()
	if a := rec.Armed; a == nil || a.BootID == w.bootID || a.Restored == w.bootID {
		return
	}
	running := make(map[string]bool)
	for _, v := range s.VMs.List() {
		running[v.Name] = v.State == spec.VMStateRUNNING || v.State == spec.VMStatePAUSED
	}
	for _, name := range rec.Armed.VMs {
		if running[name] {
			continue
		}
		t, err := s.VMs.Start(ctx, name, "")
		if err == nil {
			_, err = s.Tasks.Wait(ctx, t.ID)
		}
		// What something else has started, or is starting, is well.
		if code := qverr.CodeOf(err); err != nil && code != qverr.State && code != qverr.Busy {
			s.Log.Error("start VM "+name+" again, which ran before the update", "err", err)
		}
	}
	onTrial, err := s.onTrial()
	if err != nil {
		s.Log.Error("look at the slots", "err", err)
		return
	}
	err = s.change(func(r *record) {
		if r.Armed != nil {
			r.Armed.Restored = w.bootID
		}
		if !onTrial { // decided
			r.Armed = nil
		}
	})
	if err != nil {
		s.Log.Error("note that the VMs run again", "err", err)
	}
}

// onTrial says whether the running slot is not blessed yet.
func (s *Service) onTrial() (on bool, err error) {
	if _, ok := s.where(); !ok {
		return false, nil
	}
	err = s.disk(false, func(w where, d *disk) error {
		on, _ = d.trial(w.running)
		return nil
	})
	return on, err
}

// watch blesses the running system or gives it up. The limit counts from the
// start of the kernel, so that a daemon that dies again and again does not extend it.
func (s *Service) watch(ctx context.Context, i slot.Info) {
	t := slot.Trial{Good: usualGood, Limit: usualLimit}
	if i.Trial != nil {
		t = *i.Trial
	}
	s.Log.Info("this system is on trial", "slot", slot.Digits(i.Sequence), "version", i.Version, "good", t.Good, "limit", t.Limit)
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	var since time.Duration // when all was well first, 0: it is not
	last := ""
	for {
		wrong := strings.Join(s.wrong(ctx, t.Before), "; ")
		now := s.Uptime()
		if ctx.Err() != nil {
			return
		}
		if wrong != last {
			s.Log.Info("the system on trial", "missing", wrong)
			last = wrong
		}
		switch {
		case wrong != "":
			since = 0
		case since == 0:
			since = now
		case now-since >= t.Good:
			s.pass(ctx, i)
			return
		}
		if now >= t.Limit {
			if wrong == "" {
				wrong = fmt.Sprintf("all was well only for the last %s", (now - since).Round(time.Second))
			}
			s.fail(ctx, i, fmt.Sprintf("not as before within %s: %s", t.Limit, wrong))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// wrong lists what is not as it was before.
func (s *Service) wrong(ctx context.Context, b slot.Before) []string {
	var list []string
	if err := s.Ready(ctx); err != nil {
		list = append(list, "the API does not answer: "+err.Error())
	}
	s.mu.Lock()
	data := dataName(s.boot.Data)
	s.mu.Unlock()
	if b.Data != "" && data != b.Data {
		list = append(list, "the data volume "+b.Data+" is not mounted")
	}
	if u := s.Uplink(); b.Uplink && u.State != spec.UplinkInfoStateUp {
		list = append(list, "the uplink is "+string(u.State))
	}
	states := make(map[string]spec.VMState)
	for _, v := range s.VMs.List() {
		states[v.Name] = v.State
	}
	for _, name := range b.VMs {
		if state := states[name]; state != spec.VMStateRUNNING && state != spec.VMStatePAUSED {
			list = append(list, fmt.Sprintf("VM %s does not run (%s)", name, state))
		}
	}
	if len(b.Cards) == 0 {
		return list
	}
	well := make(map[string]bool)
	for _, c := range s.Cards(ctx) {
		well[c.Address] = c.Healthy || c.VM != "" // a VM that has it sees to it
	}
	for _, address := range b.Cards {
		if !well[address] {
			list = append(list, "card "+address+" is not well")
		}
	}
	return list
}

// pass blesses the running system.
func (s *Service) pass(ctx context.Context, i slot.Info) {
	err := s.disk(true, func(w where, d *disk) error {
		if err := d.bless(w.running); err != nil {
			return err
		}
		if err := s.blessed(i); err != nil {
			return err
		}
		if err := d.tidy(w.running); err != nil { // the next update needs the room, if any
			s.Log.Warn("remove old slots", "err", err)
		}
		return nil
	})
	if err != nil {
		s.fail(ctx, i, "it could not be blessed: "+err.Error())
		return
	}
	if s.Init != nil {
		if err := s.Init.Blessed(ctx); err != nil {
			s.Log.Warn("tell PID 1 that the trial is over", "err", err)
		}
	}
	s.Log.Info("the update is blessed", "version", i.Version, "slot", slot.Digits(i.Sequence))
}

// blessed notes in the store what goes with a blessing.
func (s *Service) blessed(i slot.Info) error {
	return s.change(func(r *record) {
		r.Counter = max(r.Counter, i.Counter)
		r.Failures = slices.DeleteFunc(r.Failures, func(f failure) bool { return f.SHA256 == i.SHA256 || f.Version == i.Version })
		if r.Armed != nil && r.Armed.Sequence == i.Sequence {
			r.applyKeys(r.Armed.Keys)
			r.Armed = nil
		}
	})
}

// fail gives the running system up: it notes why, and has the node reboot into
// the slot before.
func (s *Service) fail(ctx context.Context, i slot.Info, reason string) {
	s.Log.Error("the update failed; the node reboots into the slot before", "err", qverr.New(qverr.State, "version %s: %s", i.Version, reason))
	err := s.disk(true, func(w where, d *disk) error { return d.giveUp(w.running, reason, "") })
	if err != nil { // the try is used up all the same
		s.Log.Error("note why the update failed", "err", err)
	}
	again := time.NewTicker(rebootAgain)
	defer again.Stop()
	for {
		if err := s.reboot(ctx); err != nil {
			s.Log.Error("reboot into the slot before", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
