package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Times after which what shows no disk is believed to have none. USB devices answer
// within a second and their disks wait one more by default (usb_storage.delay_use).
// The ports of a hub show that a device is being addressed. One second for a hub was
// tried, and missed a disk on a busy machine.
const (
	quietHub    = 2 * time.Second
	quietHost   = 2 * time.Second // of memory cards
	quietDevice = 8 * time.Second
)

// Probing knows whether disks may still appear, when the drivers of all
// controllers are loaded: most drivers return when they have found their disks,
// USB and MMC do not. What it saw first when is kept between calls.
type Probing struct {
	Sys string

	seen map[string]time.Time
}

// Until tells whether a disk may still appear, and when to look again if
// nothing happens before.
func (p *Probing) Until(now time.Time) (time.Time, bool) {
	if p.seen == nil {
		p.seen = make(map[string]time.Time)
	}
	var until time.Time
	wait := func(what string, d time.Duration) {
		first, ok := p.seen[what]
		if !ok {
			first, p.seen[what] = now, now
		}
		if end := first.Add(d); end.After(now) && (until.IsZero() || end.Before(until)) {
			until = end
		}
	}
	for _, bus := range p.glob("bus/usb/devices/usb*") {
		wait(bus, quietHub)
	}
	for _, file := range p.glob("bus/usb/devices/*/bInterfaceClass") {
		dir := filepath.Dir(file)
		switch class := word(file); {
		case class == usbHub:
			wait(dir, quietHub)
			for _, port := range globbed(dir, "*-port*/state") {
				if s := word(port); s != "" && s != "not attached" && s != "configured" {
					wait(port, quietDevice)
				}
			}
		case class == usbStorage && !p.hasDisk(dir):
			wait(dir, quietDevice)
		}
	}
	for _, host := range p.glob("class/mmc_host/*") {
		if len(globbed(host, "mmc*:*")) == 0 {
			wait(host, quietHost)
		}
	}
	return until, !until.IsZero()
}

// Classes of USB interfaces (USB-IF, "Defined Class Codes").
const (
	usbStorage = "08"
	usbHub     = "09"
)

// word is what a file of one word or line says; "" if it is not there.
func word(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (p *Probing) glob(pattern string) []string { return globbed(p.Sys, pattern) }

func globbed(dir, pattern string) []string {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return nil
	}
	return found
}

// hasDisk tells whether a USB storage interface shows a disk.
func (p *Probing) hasDisk(dir string) bool {
	return len(globbed(dir, "host*/target*/*/block/*")) > 0
}

// Await is Scan and Choose, again at every event and as long as a disk may still
// appear, until ctx ends. Once a volume is there it is taken.
func (h Host) Await(ctx context.Context, want string, p *Probing, events <-chan struct{}) (Block, error) {
	return h.await(ctx, func(blocks []Block) (Block, error) { return Choose(blocks, want) }, p, events)
}

// AwaitPartition waits for a partition of a GPT, whatever is in it.
func (h Host) AwaitPartition(ctx context.Context, uuid string, p *Probing, events <-chan struct{}) (Block, error) {
	return h.await(ctx, func(blocks []Block) (Block, error) {
		for _, b := range blocks {
			if strings.EqualFold(b.PartUUID, uuid) {
				return b, nil
			}
		}
		return Block{}, qverr.New(qverr.NoEnt, "there is no partition with PARTUUID %s", uuid)
	}, p, events)
}

func (h Host) await(ctx context.Context, choose func([]Block) (Block, error), p *Probing, events <-chan struct{}) (Block, error) {
	for {
		blocks, scanErr := h.Scan()
		b, err := choose(blocks)
		if qverr.CodeOf(err) != qverr.NoEnt {
			return b, err
		}
		until, more := p.Until(time.Now())
		if !more {
			if scanErr != nil {
				return b, scanErr
			}
			return b, err
		}
		select {
		case <-events:
		case <-time.After(time.Until(until)):
		case <-ctx.Done():
			return b, err
		}
	}
}

// safe: nothing on the volume is a program or a device.
const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Mount mounts the data volume at target. After an error of the disk the file
// system becomes read-only rather than worse.
func Mount(b Block, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return qverr.New(qverr.IO, "mount %s: %w", b, err)
	}
	if err := unix.Mount(b.FSDevice(), target, "ext4", safe|unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return qverr.New(qverr.StrOpen, "mount %s: %w", b, err).
			WithHint("check it on another machine: e2fsck -f %s", b.Device)
	}
	return nil
}

// MountRAM mounts memory at target instead.
func MountRAM(target string) error {
	err := os.MkdirAll(target, 0o755)
	if err == nil {
		err = unix.Mount("data", target, "tmpfs", safe, "mode=0755")
	}
	if err != nil {
		return qverr.New(qverr.IO, "mount memory at %s: %w", target, err)
	}
	return nil
}
