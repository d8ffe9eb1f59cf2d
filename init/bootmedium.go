package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/init/medium"
	"quantavirt/init/mount"
	"quantavirt/init/volume"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

const (
	efiDir  = "/sys/firmware/efi"
	efiVars = efiDir + "/efivars"
	// espDir is where PID 1 looks at the EFI system partition for a moment.
	espDir = "/run/quantavirt/esp"
	// trialLimit is how long a system on trial has if its slot does not say, and
	// trialGrace how much longer than its limit PID 1 leaves the daemon.
	trialLimit = 5 * time.Minute
	trialGrace = time.Minute
)

// askLoader reads what firmware and boot loader say about this boot.
func (n *node) askLoader(context.Context) error {
	_, statErr := os.Stat(efiDir)
	uefi := statErr == nil
	err := n.mountVariables(uefi)
	bootif, _ := n.line.Word("BOOTIF")
	loader, readErr := medium.Read(efiVars, uefi, n.line.Option, bootif)
	n.loader = loader
	n.set(func(b *wire.Boot) {
		b.Medium = loader.Medium()
		if b.Medium == medium.PXE {
			b.Card = loader.Card
		}
	})
	n.log.Info("boot loader", "medium", loader.Medium(), "slot", loader.Slot, "esp", loader.PartUUID, "trial", loader.Trial, "card", loader.Card)
	return errors.Join(err, readErr)
}

// findMedium finds the disk or disc that the node booted from, and sees to it that
// a system that the boot loader only tries is given up in time.
func (n *node) findMedium(ctx context.Context) error {
	switch n.loader.Medium() {
	case medium.ISO:
		disc := n.awaitDisc(ctx)
		n.set(func(b *wire.Boot) { b.ESPDevice = disc })
		return nil
	case medium.UEFIDisk, medium.BIOSDisk:
	default:
		return nil
	}
	esp, err := n.findPartition(ctx, n.loader.PartUUID)
	if err == nil {
		n.set(func(b *wire.Boot) {
			b.Slot, b.ESPDevice, b.ESPPartUUID = slot.Digits(n.loader.Slot), esp.Device, n.loader.PartUUID
		})
	}
	if n.loader.Trial {
		n.watchTrial(esp.Device, n.loader.Slot)
	}
	return err
}

// mountVariables makes the firmware's variables readable, and last words of a
// kernel, where there are any.
func (n *node) mountVariables(uefi bool) error {
	var errs []error
	if uefi {
		if err := load(n.modules, "efivarfs"); err != nil && !errors.Is(err, qverr.NoEnt) {
			errs = append(errs, err)
		}
		errs = append(errs, mount.All(mount.Variables))
		if err := load(n.modules, "efi_pstore"); err != nil && !errors.Is(err, qverr.NoEnt) {
			n.log.Info("no panic is kept in the firmware's variables", "err", err)
		}
	}
	if _, err := os.Stat("/sys/fs/pstore"); err == nil {
		errs = append(errs, mount.All(mount.PStore))
	}
	return errors.Join(errs...)
}

// awaitDisc waits for a drive with our ISO as long as one may still appear: that
// of a BMC is on USB.
func (n *node) awaitDisc(ctx context.Context) string {
	events, stop := n.diskEvents()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, dataLimit)
	defer cancel()
	probing := &volume.Probing{Sys: "/sys"}
	for {
		if disc := findDisc(); disc != "" {
			return disc
		}
		until, more := probing.Until(time.Now())
		if !more {
			return ""
		}
		select {
		case <-events:
		case <-time.After(time.Until(until)):
		case <-ctx.Done():
			return ""
		}
	}
}

// findDisc is the drive with our ISO, "" if there is none.
func findDisc() string {
	drives, _ := filepath.Glob("/sys/class/block/sr*") // a pattern that is right
	for _, drive := range drives {
		device := "/dev/" + filepath.Base(drive)
		f, err := os.Open(device)
		if err != nil {
			continue // empty
		}
		ours := medium.IsDisc(f)
		_ = f.Close()
		if ours {
			return device
		}
	}
	return ""
}

// findPartition waits for a partition as long as its disk may still appear.
func (n *node) findPartition(ctx context.Context, uuid string) (volume.Block, error) {
	events, stop := n.diskEvents()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, dataLimit)
	defer cancel()
	return volume.Host{Sys: "/sys", Dev: "/dev"}.AwaitPartition(ctx, uuid, &volume.Probing{Sys: "/sys"}, events)
}

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
			n.say(qverr.New(qverr.Timeout, "the system in slot %s was not blessed within %s: the node reboots into the slot before", slot.Digits(seq), limit))
			n.end(reboot, "an update that failed")
		}
	})
}

// readLimit looks into the EFI system partition for how long a trial lasts.
func (n *node) readLimit(device string, seq uint32) (limit time.Duration, err error) {
	for _, m := range []string{"vfat", "nls_cp437", "nls_ascii"} {
		if err := load(n.modules, m); err != nil && !errors.Is(err, qverr.NoEnt) {
			return trialLimit, err
		}
	}
	if err := os.MkdirAll(espDir, 0o700); err != nil {
		return trialLimit, qverr.New(qverr.IO, "EFI system partition: %w", err)
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(device, espDir, "vfat", flags, "umask=0077"); err != nil {
		return trialLimit, qverr.New(qverr.IO, "mount the EFI system partition %s: %w", device, err)
	}
	defer func() {
		if e := unix.Unmount(espDir, unix.MNT_DETACH); e != nil {
			err = errors.Join(err, qverr.New(qverr.IO, "unmount the EFI system partition: %w", e))
		}
	}()
	return limitOf(espDir, seq), nil
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

// Kexec implements control.Node.
func (n *node) Kexec() { n.end(kexec, "request") }
