package update

import (
	"context"
	"errors"
	"io"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/task"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// Options of an update.
type Options struct {
	Check    bool // only receive and verify
	Force    bool // a version that failed here before, again
	NoReboot bool // leave the reboot to the operator
	Kexec    bool // start the new kernel directly
	// Good is how long all must be well before the system is blessed, Limit
	// when that must have been, since its kernel started. 0 for the usual.
	Good, Limit time.Duration
}

const (
	usualGood  = 30 * time.Second
	usualLimit = 5 * time.Minute
	target     = "system"
)

func (o Options) complete() (Options, error) {
	if o.Good == 0 {
		o.Good = usualGood
	}
	if o.Limit == 0 {
		o.Limit = max(usualLimit, 2*o.Good)
	}
	if o.Good < 0 || o.Limit > time.Hour || o.Good >= o.Limit {
		return o, qverr.New(qverr.Inval, "a health window of %s within %s: the first must be shorter, the second at most an hour", o.Good, o.Limit)
	}
	return o, nil
}

// Upload installs the bundle that a request brings. It returns when all of it
// was taken in, with the task that goes on, or with why it was refused.
func (s *Service) Upload(ctx context.Context, requestID string, in io.Reader, o Options) (spec.Task, error) {
	taken := make(chan error, 1)
	t, err := s.start(ctx, requestID, o, taken, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(in), nil })
	if err != nil {
		return spec.Task{}, err
	}
	if err := <-taken; err != nil {
		return spec.Task{}, err
	}
	return s.Tasks.Get(t.ID)
}

// Download installs a bundle that the node fetches itself.
func (s *Service) Download(ctx context.Context, requestID, url string, o Options) (spec.Task, error) {
	return s.start(ctx, requestID, o, make(chan error, 1), func(ctx context.Context) (io.ReadCloser, error) { return download(ctx, url) })
}

// start starts the task. taken gets one value, when the bundle was read.
func (s *Service) start(ctx context.Context, requestID string, o Options, taken chan<- error, open func(context.Context) (io.ReadCloser, error)) (spec.Task, error) {
	o, err := o.complete()
	if err != nil {
		return spec.Task{}, err
	}
	if err := s.await(ctx); err != nil {
		return spec.Task{}, err
	}
	if err := s.ready(o); err != nil {
		return spec.Task{}, err
	}
	if err := s.take(); err != nil {
		return spec.Task{}, err
	}
	kind := "system.update"
	if o.Check {
		kind = "system.check-update"
	}
	t, err := s.Tasks.Start(task.Spec{Kind: kind, Target: target, RequestID: requestID, Cancellable: true},
		func(ctx context.Context, p *task.Progress) (err error) {
			defer func() { // the first value counts
				select {
				case taken <- err:
				default:
				}
			}()
			defer s.release() // who hears that it failed may try again
			in, err := open(ctx)
			if err != nil {
				return err
			}
			got, err := s.receive(ctx, in, o.Force, p)
			_ = in.Close()
			if err != nil {
				return err
			}
			defer got.close()
			if err := s.starts(got, o); err != nil {
				return err
			}
			taken <- nil
			return s.install(ctx, got, o, p)
		})
	if err != nil {
		s.release()
	}
	return t, err
}

// ready says why no update can begin now.
func (s *Service) ready(o Options) error {
	if o.Check {
		return nil
	}
	if _, ok := s.where(); !ok && !o.Kexec {
		return noSlots()
	}
	on, err := s.onTrial()
	if err == nil && on {
		err = qverr.New(qverr.State, "the running system is itself on trial").
			WithHint("wait until it is blessed: quantavirt system slots")
	}
	return err
}

// install brings a received system into its slot and starts it.
func (s *Service) install(ctx context.Context, got *received, o Options, p *task.Progress) error {
	img, err := got.verify(ctx, p)
	if err != nil {
		return err
	}
	m := got.manifest
	err = s.change(func(r *record) {
		r.Last = &lastBundle{Version: m.Version, Counter: m.Counter, Notes: m.Notes, CreatedAt: m.CreatedAt, Verified: time.Now().UTC()}
	})
	if err != nil || o.Check {
		return err
	}
	if w, ok := s.where(); !ok {
		vms := s.before(ctx).VMs
		if err := s.change(func(r *record) { r.Armed = &armed{BootID: w.bootID, VMs: vms, Keys: m.Keys} }); err != nil {
			return err
		}
		who := "what boots the node"
		if s.fromNetwork() {
			who = "the netboot server"
		}
		s.Log.Warn("the new system is started directly and is not kept: at the next cold boot "+who+" decides again", "version", m.Version)
		return s.startDirectly(ctx, img, nil, p)
	}
	seq, err := s.writeSlot(ctx, got, img, o, p)
	if err != nil {
		return err
	}
	s.Log.Info("an update is armed", "version", m.Version, "slot", slot.Digits(seq))
	switch {
	case o.NoReboot:
		return nil
	case o.Kexec:
		if err := s.startDirectly(ctx, img, &seq, p); err != nil {
			return errors.Join(err, s.disk(true, func(_ where, d *disk) error { return d.remove(seq) }))
		}
		return nil
	}
	p.Phase("reboot")
	return s.reboot(ctx)
}

func (s *Service) reboot(ctx context.Context) error {
	if s.Init == nil {
		return qverr.New(qverr.Unsupported, "reboot: this daemon runs without QuantaVirt's PID 1")
	}
	return s.Init.Reboot(context.WithoutCancel(ctx))
}

// writeSlot writes a system into a new slot and arms it.
func (s *Service) writeSlot(ctx context.Context, got *received, img *image, o Options, p *task.Progress) (seq uint32, err error) {
	before := s.before(ctx)
	err = s.disk(true, func(w where, d *disk) error {
		if seq, err = d.next(); err != nil {
			return err
		}
		info := slot.Info{
			Sequence: seq, Version: got.manifest.Version, Build: s.build, SHA256: img.sum, Counter: got.manifest.Counter,
			WrittenAt: time.Now().UTC(), State: slot.StateTry,
			Trial: &slot.Trial{From: w.running, BootID: w.bootID, Good: o.Good, Limit: o.Limit, Before: before, ArmedAt: time.Now().UTC()},
		}
		var need int64 = margin
		for _, part := range img.parts(d, seq) {
			need += part.size
		}
		if err := d.makeRoom(w.running, need); err != nil {
			return err
		}
		if err := d.write(ctx, img, info, p.Phase, p.Set); err != nil {
			return err
		}
		p.Phase("arm")
		if s.Reseal != nil {
			if err := s.Reseal(img.file, img.size, "slot "+slot.Digits(seq)); err != nil {
				return errors.Join(qverr.New(qverr.CodeOf(err), "seal the data volume for the new system: %w", err), d.remove(seq))
			}
		}
		err := s.change(func(r *record) {
			r.Armed = &armed{Sequence: seq, BootID: w.bootID, VMs: before.VMs, Keys: got.manifest.Keys}
		})
		if err == nil {
			err = d.arm(seq, o.Kexec)
		}
		if err != nil {
			return errors.Join(err, d.remove(seq))
		}
		return nil
	})
	return seq, err
}

// before is how the node is now.
func (s *Service) before(ctx context.Context) slot.Before {
	s.mu.Lock()
	data := s.boot.Data
	s.mu.Unlock()
	b := slot.Before{Data: dataName(data), Uplink: s.Uplink().State == spec.UplinkInfoStateUp}
	for _, v := range s.VMs.List() {
		if v.State == spec.VMStateRUNNING || v.State == spec.VMStatePAUSED {
			b.VMs = append(b.VMs, v.Name)
		}
	}
	for _, c := range s.Cards(ctx) {
		if c.Healthy {
			b.Cards = append(b.Cards, c.Address)
		}
	}
	return b
}

// dataName names the data volume, "" for none.
func dataName(d initapi.DataVolume) string {
	switch {
	case !d.Persistent:
		return ""
	case d.PartUUID != "":
		return d.PartUUID
	}
	return d.Device
}

// RollBack has the node boot the slot before from now on, and reboots.
// QV_ERR_NOENT: there is none.
func (s *Service) RollBack(ctx context.Context) (spec.PowerAction, error) {
	if err := s.await(ctx); err != nil {
		return spec.PowerAction{}, err
	}
	if err := s.take(); err != nil {
		return spec.PowerAction{}, err
	}
	defer s.release()
	err := s.disk(true, func(w where, d *disk) error {
		to, err := d.rollBack(w.running, "rolled back by hand on "+time.Now().UTC().Format(time.DateTime))
		if err != nil {
			return err
		}
		s.Log.Info("rolled back by hand", "from", slot.Digits(w.running), "to", slot.Digits(to))
		before := s.before(ctx)
		return s.change(func(r *record) { r.Armed = &armed{Sequence: to, BootID: w.bootID, VMs: before.VMs} })
	})
	if err == nil {
		err = s.reboot(ctx)
	}
	return spec.PowerAction{Action: spec.PowerActionActionReboot}, err
}
