package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

const (
	// trialLimit is how long a system on trial has if its slot does not say, and
	// trialGrace how much longer than its limit PID 1 leaves the daemon.
	trialLimit = 5 * time.Minute
	trialGrace = time.Minute
	// noteLimit is how long the EFI system partition has to take a note.
	noteLimit = 10 * time.Second
	// espDir is where PID 1 looks at the EFI system partition for a moment.
	espDir = "/run/quantavirt/esp"
	// mediumDirs is where the daemon does.
	mediumDirs = "/run/quantavirt/medium-*"
)

// watchTrial resets the machine if nobody blesses this boot or gives it up in
// time: then the daemon does not live, and the boot loader takes the slot before.
func (n *node) watchTrial(device string, seq uint32) {
	limit := trialLimit
	if device != "" {
		var err error
		if limit, err = n.readLimit(device, seq); err != nil {
			n.log.Error("how long the trial lasts", "err", err)
		}
	}
	n.set(func(b *wire.Boot) { b.Trial = true })
	n.log.Info("this system is on trial", "slot", slot.Digits(seq), "limit", limit)
	guard.Go(n.log, "trial", func() {
		select {
		case <-n.blessed:
		case <-time.After(limit + trialGrace - sinceStart()):
			n.giveUpTrial(qverr.New(qverr.Timeout, "not blessed within %s, and nothing said why", limit))
		}
	})
}

// giveUpTrial reboots into the slot before, which finds the reason in the EFI
// system partition. It does nothing in a boot that is no trial.
func (n *node) giveUpTrial(why error) {
	b := n.Boot()
	if !b.Trial {
		return
	}
	n.log.Error("the update failed; the node reboots into the slot before", "slot", b.Slot, "err", why)
	n.say(why)
	noted := make(chan error, 1)
	guard.Go(n.log, "note", func() { noted <- note(b.ESPDevice, b.Slot, wire.NewProblem(why).Message) })
	select {
	case err := <-noted:
		if err != nil { // the try is used up all the same
			n.log.Error("note why the update failed", "err", err)
		}
	case <-time.After(noteLimit):
		n.log.Error("note why the update failed", "err", qverr.New(qverr.Timeout, "%s takes nothing within %s", b.ESPDevice, noteLimit))
	}
	n.end(reboot, "an update that failed")
}

// note leaves a text beside a slot.
func note(device, digits, text string) error {
	if device == "" {
		return qverr.New(qverr.NoEnt, "there is no EFI system partition")
	}
	// A daemon that died there has it mounted read-only, which is in the way.
	left, _ := filepath.Glob(mediumDirs) // a pattern that is right
	for _, dir := range left {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
	return withESP(device, 0, func() error { return writeNote(espDir, digits, text) })
}

// writeNote writes it below root, if the slot is there.
func writeNote(root, digits, text string) error {
	path := filepath.Join(root, slot.Folder, digits, slot.NoteFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return qverr.New(qverr.IO, "EFI system partition: %w", err)
	}
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return qverr.New(qverr.IO, "EFI system partition: %w", err)
	}
	return nil
}

// readLimit looks into the EFI system partition for how long a trial lasts.
func (n *node) readLimit(device string, seq uint32) (limit time.Duration, err error) {
	limit = trialLimit
	for _, m := range []string{"vfat", "nls_cp437", "nls_ascii"} {
		if err := load(n.modules, m); err != nil && !errors.Is(err, qverr.NoEnt) {
			return limit, err
		}
	}
	err = withESP(device, unix.MS_RDONLY, func() error {
		limit = limitOf(espDir, seq)
		return nil
	})
	return limit, err
}

// withESP calls use while the EFI system partition is mounted at espDir.
func withESP(device string, flags uintptr, use func() error) (err error) {
	if err := os.MkdirAll(espDir, 0o700); err != nil {
		return qverr.New(qverr.IO, "EFI system partition: %w", err)
	}
	flags |= unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(device, espDir, "vfat", flags, "umask=0077"); err != nil {
		return qverr.New(qverr.IO, "mount the EFI system partition %s: %w", device, err)
	}
	defer func() {
		if e := unix.Unmount(espDir, unix.MNT_DETACH); e != nil {
			err = errors.Join(err, qverr.New(qverr.IO, "unmount the EFI system partition: %w", e))
		}
	}()
	return use()
}

// limitOf is the limit that slot.json below root has for a slot, or the usual.
func limitOf(root string, seq uint32) time.Duration {
	data, err := os.ReadFile(filepath.Join(root, slot.Folder, slot.Digits(seq), slot.InfoFile))
	if err != nil {
		return trialLimit
	}
	i, err := slot.ParseInfo(data)
	if err != nil || i.Trial == nil || i.Trial.Limit <= 0 || i.Trial.Limit > time.Hour {
		return trialLimit
	}
	return i.Trial.Limit
}

// Blessed implements control.Node.
func (n *node) Blessed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.blessed:
	default:
		close(n.blessed)
		n.boot.Trial = false
	}
}
