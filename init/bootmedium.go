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
