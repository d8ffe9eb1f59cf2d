package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/cmdline"
	"quantavirt/init/guard"
	"quantavirt/init/hw"
	"quantavirt/init/power"
	"quantavirt/init/uevent"
	"quantavirt/init/volume"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// mountData mounts the data volume, or memory in its place. Only the lack of a
// volume is no problem.
func (n *node) mountData(ctx context.Context) error {
	want, _ := n.line.Option(cmdline.OptData)
	err := volume.CheckWant(want)
	if err == nil && want != volume.RAM {
		var b volume.Block
		if b, err = n.findData(ctx, want); err == nil {
			err = n.useData(ctx, b)
		}
		if err == nil {
			return nil
		}
		if qverr.CodeOf(err) == qverr.NoEnt && want == "" {
			n.log.Info("no data volume", "err", err)
			err = nil
		}
	}
	ramErr := volume.MountRAM(dataDir)
	var st unix.Statfs_t
	_ = unix.Statfs(dataDir, &st)
	n.set(func(b *wire.Boot) {
		b.Data = wire.DataVolume{SizeBytes: int64(st.Blocks) * st.Bsize, Problem: wire.NewProblem(err)}
		if shut := n.shut; shut != nil {
			b.Data.Encrypted, b.Data.Locked, b.Data.Device, b.Data.PartUUID = true, true, shut.Device, shut.PartUUID
		}
	})
	n.show("quantavirt: no data volume is used: all state is in RAM and lost at reboot")
	return errors.Join(err, ramErr)
}

// findData looks for the volume, as long as a disk may still appear.
func (n *node) findData(ctx context.Context, want string) (volume.Block, error) {
	probing := &volume.Probing{Sys: "/sys"}
	events, stop := n.diskEvents()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, dataLimit)
	defer cancel()
	return volume.Host{Sys: "/sys", Dev: "/dev"}.Await(ctx, want, probing, events)
}

// diskEvents says when a disk may have appeared, until stop is called.
func (n *node) diskEvents() (events <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	if n.events == nil {
		return c, func() {}
	}
	return c, n.events.Subscribe(func(e uevent.Event) {
		if s := e.Env["SUBSYSTEM"]; s != "block" && s != "usb" && s != "mmc" && e.Action != uevent.Lost {
			return
		}
		select {
		case c <- struct{}{}:
		default:
		}
	})
}

// dataLimit is how long late disks are waited for.
const dataLimit = 15 * time.Second

func (n *node) useData(ctx context.Context, b volume.Block) error {
	if b.Crypt != nil {
		if err := n.openData(&b); err != nil {
			return err
		}
	}
	return n.mountVolume(ctx, b)
}

// mountVolume mounts the data volume, which is open if it is encrypted.
func (n *node) mountVolume(ctx context.Context, b volume.Block) error {
	if err := load(n.modules, "ext4"); err != nil && !errors.Is(err, qverr.NoEnt) {
		return err
	}
	if err := n.checkData(ctx, &b); err != nil {
		return err
	}
	if err := volume.Mount(b, dataDir); err != nil {
		return err
	}
	d := wire.DataVolume{Persistent: true, Device: b.Device, PartUUID: b.PartUUID, SizeBytes: b.FS.Size, Encrypted: b.Crypt != nil}
	if b.FS.Errors {
		err := qverr.New(qverr.StrIO, "the kernel has found errors in the file system of %s", b).
			WithHint("power the node off and check the volume on another machine: e2fsck -f %s", b.Device)
		d.Problem = wire.NewProblem(err)
		n.say(err)
	}
	n.set(func(boot *wire.Boot) { boot.Data = d })
	n.log.Info("data volume", "device", b.String(), "size", b.FS.Size)
	return nil
}

func (n *node) system() hw.System {
	return hw.System{Sys: "/sys", Proc: "/proc", Dev: "/dev", Load: func(name string) error { return load(n.quiet, name) }}
}

// problem makes a problem that a part has found the step's.
func problem(p *wire.Problem) error {
	if p == nil {
		return nil
	}
	return qverr.New(qverr.Code(p.Code), "%s", p.Message).WithHint("%s", p.Recovery)
}

func (n *node) checkKVM(context.Context) error {
	k, warm := n.system().KVM()
	n.warm = warm
	n.set(func(b *wire.Boot) { b.KVM = k })
	return problem(k.Problem)
}

func (n *node) checkIOMMU(context.Context) error {
	io := n.system().IOMMU()
	n.set(func(b *wire.Boot) { b.IOMMU = io })
	if io.Available {
		// Any function may be given to a VM later, when nobody loads modules any more.
		if err := n.system().LoadVFIO(); err != nil {
			return qverr.New(qverr.NoIOMMU, "the drivers that give devices to VMs: %w", err)
		}
	}
	return problem(io.Problem)
}

// watchPowerButton watches every input device with a power key, and those that
// come later.
func (n *node) watchPowerButton(context.Context) error {
	for _, m := range []string{"button", "evdev"} {
		if err := load(n.quiet, m); err != nil && !errors.Is(err, qverr.NoEnt) {
			n.log.Warn("power button", "err", err)
		}
	}
	var mu sync.Mutex
	var watched []string
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range power.Buttons("/sys") {
			if slices.Contains(watched, name) {
				continue
			}
			watched = append(watched, name)
			n.log.Info("power button", "device", name)
			guard.Go(n.log, "power button "+name, func() {
				err := power.Watch(n.ctx, "/dev/input/"+name, func() { n.end(powerOff, "power button") })
				n.log.Info("power button is gone", "device", name, "err", err)
				mu.Lock()
				defer mu.Unlock()
				watched = slices.DeleteFunc(watched, func(w string) bool { return w == name })
			})
		}
	}
	if n.events != nil {
		n.events.Subscribe(func(e uevent.Event) {
			if e.Action == "add" && e.Env["SUBSYSTEM"] == "input" {
				guard.Go(n.log, "power button", look)
			}
		})
	}
	look()
	return nil
}
