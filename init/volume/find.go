package volume

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Times after which what shows no disk is believed to have none. USB devices answer
// within a second and their disks wait one more by default (usb_storage.delay_use).
const (
	// quietHub is for a hub that can be asked what is connected to it. That is true when
	// its ports have power (510 ms at most, bPwrOn2PwrGood), the devices have shown
	// themselves (100 ms) and the contact has settled (100 ms): USB 2.0, sections 7.1.7.3
	// and 11.23.2.1.
	quietHub    = 1 * time.Second
	blindHub    = 2 * time.Second // one that cannot
	quietHost   = 2 * time.Second // of memory cards
	quietDevice = 8 * time.Second
)

// Probing knows whether disks may still appear, when the drivers of all
// controllers are loaded: most drivers return when they have found their disks,
// USB and MMC do not. What it saw first when is kept between calls.
type Probing struct {
	Sys string
	// Connections asks a hub which of its ports have something connected; nil: the hub
	// itself by usbfs.
	Connections func(device string, ports []int) (map[int]bool, error)

	seen map[string]time.Time
}

// Until tells whether a disk may still appear, and when to look again if
// nothing happens before.
func (p *Probing) Until(now time.Time) (time.Time, bool) {
	if p.seen == nil {
		p.seen = make(map[string]time.Time)
	}
	var until time.Time
	wait := func(what string, since time.Time, d time.Duration) {
		first, ok := p.seen[what]
		if !ok {
			first, p.seen[what] = since, since
		}
		if end := first.Add(d); end.After(now) && (until.IsZero() || end.Before(until)) {
			until = end
		}
	}
	for _, file := range p.glob("bus/usb/devices/*/bInterfaceClass") {
		dir := filepath.Dir(file)
		switch class := word(file); {
		case class == usbHub:
			pending, blind := p.ports(dir)
			wait(dir, now.Add(-p.age(dir)), map[bool]time.Duration{false: quietHub, true: blindHub}[blind])
			for _, port := range pending {
				wait(port, now, quietDevice)
			}
		case class == usbStorage && !p.hasDisk(dir):
			wait(dir, now, quietDevice)
		}
	}
	for _, bus := range p.glob("bus/usb/devices/usb*") {
		if len(p.glob("bus/usb/devices/"+strings.TrimPrefix(filepath.Base(bus), "usb")+"-0:1.0")) == 0 { // its hub is not there yet
			wait(bus, now, blindHub)
		}
	}
	for _, host := range p.glob("class/mmc_host/*") {
		if len(globbed(host, "mmc*:*")) == 0 {
			wait(host, now, quietHost)
		}
	}
	return until, !until.IsZero()
}

// ports are those of a hub on which something is that is not in use yet. blind says that
// the hub could not be asked: then they are those on which the kernel is at work.
func (p *Probing) ports(dir string) (pending []string, blind bool) {
	var open []string
	var numbers []int
	for _, port := range globbed(dir, "*-port*") {
		_, text, _ := strings.Cut(filepath.Base(port), "-port")
		number, err := strconv.Atoi(text)
		switch state := word(filepath.Join(port, "state")); {
		case err != nil || state == "configured" || state == "suspended":
		case state == "" || state == "not attached":
			open, numbers = append(open, port), append(numbers, number)
		default:
			pending = append(pending, port)
		}
	}
	if len(open) == 0 {
		return pending, false
	}
	ask := p.Connections
	if ask == nil {
		ask = connections
	}
	connected, err := ask(deviceOf(dir), numbers)
	for i, port := range open {
		if connected[numbers[i]] {
			pending = append(pending, port)
		}
	}
	return pending, err != nil
}

// deviceOf is the device of an interface.
func deviceOf(dir string) string {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return dir
	}
	return filepath.Dir(path)
}

// age is how long a hub is there already.
func (p *Probing) age(dir string) time.Duration {
	ms, err := strconv.Atoi(word(filepath.Join(deviceOf(dir), "power/connected_duration")))
	if err != nil || ms < 0 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
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
