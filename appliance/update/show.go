package update

import (
	"context"
	"slices"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/slot"
)

// Slots shows the node's slots, newest first, and how updates went.
func (s *Service) Slots(ctx context.Context) (spec.SlotList, error) {
	if err := s.await(ctx); err != nil {
		return spec.SlotList{}, err
	}
	rec, err := s.record()
	if err != nil {
		return spec.SlotList{}, err
	}
	s.mu.Lock()
	out := spec.SlotList{Items: []spec.Slot{}, Failures: []spec.UpdateFailure{}, Medium: s.boot.Medium, Counter: int64(rec.Counter)}
	s.mu.Unlock()
	for _, f := range rec.Failures {
		out.Failures = append(out.Failures, spec.UpdateFailure{Version: f.Version, Sha256: f.SHA256, Reason: f.Reason, Time: f.Time})
	}
	if l := rec.Last; l != nil {
		out.LastBundle = spec.UpdateBundle{Version: l.Version, Counter: int64(l.Counter), Notes: l.Notes, CreatedAt: l.CreatedAt, VerifiedAt: l.Verified}
	}
	if _, ok := s.where(); !ok {
		out.Message = noSlots().Message
		if s.fromNetwork() {
			out.Message = "the node has no slots: it was booted from the network, and at the next cold boot the netboot server decides again what it runs"
		}
		return out, nil
	}
	err = s.disk(false, func(w where, d *disk) error {
		for _, seq := range slices.Backward(d.sequences()) {
			if one, ok := show(w, d, seq); ok {
				out.Items = append(out.Items, one)
			}
		}
		return nil
	})
	return out, err
}

// show shows one slot; false: it is the rest of one that was never complete.
func show(w where, d *disk, seq uint32) (spec.Slot, bool) {
	i, known := d.infos[seq]
	if !known && !d.whole(seq) {
		return spec.Slot{}, false
	}
	one := spec.Slot{
		Slot: slot.Digits(seq), Version: i.Version, Build: i.Build, Counter: int64(i.Counter), Sha256: i.SHA256, WrittenAt: i.WrittenAt,
		State: spec.SlotState(i.State), Reason: i.Reason, Panic: i.Panic,
		Running: seq == w.running, Next: seq == d.boots(), Whole: d.whole(seq),
	}
	if !known {
		one.State = spec.SlotStateGood
		if on, _ := d.trial(seq); on {
			one.State = spec.SlotStateTry
		}
	}
	if left := d.tries(seq); left >= 0 && one.State == spec.SlotStateTry {
		one.TriesLeft = &left
	}
	return one, true
}

// Panics is the last words of kernels: of those whose slots keep them, and what the
// firmware's memory holds still.
func (s *Service) Panics(ctx context.Context) (map[string]string, error) {
	list, err := s.Slots(ctx)
	out := make(map[string]string)
	for _, one := range list.Items {
		if one.Panic != "" {
			out["slot-"+one.Slot] = one.Panic
		}
	}
	if text, _ := lastWords(s.PStore); text != "" {
		out["pstore"] = text
	}
	return out, err
}
