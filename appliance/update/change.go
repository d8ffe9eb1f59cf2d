package update

import (
	"path"
	"slices"

	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// What is done to slots. Each of these leaves, after each of its steps, a disk
// from which every loader boots a whole system; crash_test.go cuts the power
// between all of them.

// kept are the slots that must not go: the running one, and those that a loader
// boots without trying.
func (d *disk) kept(running uint32) map[uint32]bool {
	keep := map[uint32]bool{running: true}
	if d.env != nil {
		keep[d.env.Default()] = true
	}
	var blessed []slot.Name
	for _, list := range d.ukis {
		for _, n := range list {
			if !n.Counted {
				blessed = append(blessed, n)
			}
		}
	}
	if len(blessed) > 0 {
		keep[slices.MinFunc(blessed, slot.Compare).Sequence] = true
	}
	return keep
}

// spare are the slots that may go, those first that are missed least: what has
// failed or was never blessed, then the oldest.
func (d *disk) spare(running uint32) []uint32 {
	keep := d.kept(running)
	var bad, old []uint32
	for _, seq := range d.sequences() {
		switch {
		case keep[seq]:
		case d.infos[seq].State == slot.StateGood && d.whole(seq):
			old = append(old, seq)
		default:
			bad = append(bad, seq)
		}
	}
	return append(bad, old...)
}

// tidy leaves the running slot and the one before it, to roll back to.
func (d *disk) tidy(running uint32) error {
	spare := d.spare(running)
	for i, seq := range spare {
		last := i == len(spare)-1
		if last && d.infos[seq].State == slot.StateGood && d.whole(seq) {
			break
		}
		if err := d.remove(seq); err != nil {
			return err
		}
	}
	return nil
}

// files are all files of a slot, in the order in which they go: what a loader
// sees first.
func (d *disk) files(seq uint32) ([]string, error) {
	var all []string
	for _, n := range slices.Concat(d.ukis[seq], d.lost[seq]) {
		all = append(all, uki(n))
	}
	if d.waiting[seq] {
		all = append(all, waitingUKI(seq))
	}
	if !d.folders[seq] {
		return all, nil
	}
	inside, err := d.v.List(path.Join(slot.Folder, slot.Digits(seq)))
	if err != nil {
		return nil, err
	}
	slices.Sort(inside)
	for _, f := range inside {
		all = append(all, inFolder(seq, f))
	}
	return all, nil
}

// size is the room that a slot takes, in bytes.
func (d *disk) size(seq uint32) (int64, error) {
	files, err := d.files(seq)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, name := range files {
		f, size, err := d.v.Open(name)
		if err != nil {
			return 0, err
		}
		_ = f.Close()
		total += size
	}
	return total, nil
}

// remove takes a slot away.
func (d *disk) remove(seq uint32) error {
	if d.env != nil {
		if try, _ := d.env.Try(); try == seq {
			e := *d.env
			e.EndTry()
			if err := d.saveEnv(e); err != nil {
				return err
			}
		}
	}
	files, err := d.files(seq)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := d.v.Remove(name); err != nil {
			return err
		}
	}
	if err := d.v.Remove(path.Join(slot.Folder, slot.Digits(seq))); err != nil {
		return err
	}
	delete(d.ukis, seq)
	delete(d.lost, seq)
	delete(d.waiting, seq)
	delete(d.pieces, seq)
	delete(d.infos, seq)
	delete(d.folders, seq)
	return nil
}

// arm has this machine's loader try a slot once. With tried the try counts as
// done: it is started without the loader. The other loader learns of the slot
// when it is blessed.
func (d *disk) arm(seq uint32, tried bool) error {
	if d.firmware == BIOS {
		if d.env == nil {
			return qverr.New(qverr.NoEnt, "EFI system partition: there is no %s", slot.EnvFile)
		}
		e := *d.env
		e.Arm(seq, tried)
		return d.saveEnv(e)
	}
	n := slot.Name{Sequence: seq, Counted: true, Left: 1}
	if tried {
		n = n.Tried()
	}
	return d.show(n)
}

// show gives an image that no loader has seen its name.
func (d *disk) show(n slot.Name) error {
	if err := d.v.Rename(waitingUKI(n.Sequence), uki(n)); err != nil {
		return err
	}
	delete(d.waiting, n.Sequence)
	d.ukis[n.Sequence] = append(d.ukis[n.Sequence], n)
	return nil
}

// bless makes a slot the one that all loaders boot from now on.
func (d *disk) bless(seq uint32) error {
	good := slot.Name{Sequence: seq}
	switch {
	case d.waiting[seq]:
		if err := d.show(good); err != nil {
			return err
		}
	case len(d.ukis[seq]) > 0:
		if err := d.rename(slices.MinFunc(d.ukis[seq], slot.Compare), good); err != nil {
			return err
		}
		for _, n := range slices.Clone(d.ukis[seq]) { // of a rename that a power cut left halfway
			if n == good {
				continue
			}
			if err := d.v.Remove(uki(n)); err != nil {
				return err
			}
		}
		d.ukis[seq] = []slot.Name{good}
	}
	if d.env != nil && d.pieces[seq] {
		e := *d.env
		e.Bless(seq)
		if err := d.saveEnv(e); err != nil {
			return err
		}
	}
	i := d.infos[seq]
	if i.Sequence == 0 || i.State == slot.StateGood {
		return nil
	}
	i.State, i.Reason, i.Panic, i.Trial = slot.StateGood, "", "", nil
	return d.saveInfo(i)
}

// giveUp takes a slot's tries and notes why.
func (d *disk) giveUp(seq uint32, reason, panicText string) error {
	for _, n := range slices.Clone(d.ukis[seq]) {
		if !n.Exhausted() {
			if err := d.rename(n, slot.Name{Sequence: seq, Counted: true, Done: n.Done}); err != nil {
				return err
			}
		}
	}
	if d.env != nil {
		if try, _ := d.env.Try(); try == seq {
			e := *d.env
			e.EndTry()
			if err := d.saveEnv(e); err != nil {
				return err
			}
		}
	}
	i := d.infos[seq]
	if i.Sequence == 0 {
		return nil
	}
	i.State, i.Reason, i.Panic = slot.StateFailed, reason, panicText
	return d.saveInfo(i)
}

// rollBack has all loaders boot the slot before, and returns its number.
// QV_ERR_NOENT: there is none.
func (d *disk) rollBack(running uint32, reason string) (uint32, error) {
	var to uint32
	for _, seq := range d.sequences() {
		if i, ok := d.infos[seq]; seq != running && d.whole(seq) && (!ok || i.State == slot.StateGood) {
			to = seq
		}
	}
	if to == 0 {
		return 0, qverr.New(qverr.NoEnt, "there is no other slot that was ever blessed").
			WithHint("see what there is: quantavirt system slots")
	}
	if err := d.bless(to); err != nil {
		return 0, err
	}
	for _, seq := range d.sequences() {
		if seq > to {
			if err := d.giveUp(seq, reason, ""); err != nil {
				return 0, err
			}
		}
	}
	if boots := d.boots(); boots != to {
		return 0, qverr.New(qverr.Generic, "slot %d was to be booted next, but it is %d", to, boots)
	}
	return to, nil
}
