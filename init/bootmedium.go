package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

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
)

// findMedium finds out what the node booted from, and whether the boot loader
// only tries it.
func (n *node) findMedium(ctx context.Context) error {
	_, statErr := os.Stat(efiDir)
	uefi := statErr == nil
	err := n.mountVariables(uefi)
	loader, readErr := medium.Read(efiVars, uefi, n.line.Option)
	kind, disc := loader.Medium(n.line.Has("BOOTIF=")), ""
	if kind == medium.ISO {
		disc = n.awaitDisc(ctx)
	}
	n.set(func(b *wire.Boot) {
		b.Medium = kind
		if kind == medium.ISO {
			b.ESPDevice = disc
		}
	})
	n.log.Info("boot medium", "kind", kind, "slot", loader.Slot, "esp", loader.PartUUID, "trial", loader.Trial)
	if kind != medium.UEFIDisk && kind != medium.BIOSDisk {
		return errors.Join(err, readErr)
	}
	esp, findErr := n.findPartition(ctx, loader.PartUUID)
	if findErr == nil {
		n.set(func(b *wire.Boot) {
			b.Slot, b.ESPDevice, b.ESPPartUUID = slot.Digits(loader.Slot), esp.Device, loader.PartUUID
		})
	}
	if loader.Trial {
		n.watchTrial(esp.Device, loader.Slot)
	}
	return errors.Join(err, readErr, findErr)
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
