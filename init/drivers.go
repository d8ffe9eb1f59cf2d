package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"quantavirt/init/guard"
	"quantavirt/init/kmod"
	"quantavirt/init/uevent"
	"quantavirt/internal/qverr"
)

const (
	moduleList = "/etc/quantavirt/modules.load"
	// networkList is those among them that the node's own network needs.
	networkList = "/etc/quantavirt/modules.network"
	// passes bounds how often new devices behind new drivers are looked for:
	// virtio's behind PCI, disks behind controllers.
	passes = 4
	// arrivals is how many new devices may wait for their drivers.
	arrivals = 1024
)

// openModules reads the module tables and begins to listen for new devices, so
// that none is missed between the first look and the end.
func (n *node) openModules(context.Context) error {
	loader, err := kmod.New(kmod.Options{
		Dir: "/lib/modules/" + n.boot.Kernel, Params: n.line.ModuleParams, Blacklist: n.line.Blacklist(),
		Loaded: func(module string, took time.Duration, err error) {
			n.log.Debug("module "+module, "took_ms", took.Milliseconds(), "err", err)
		},
	})
	if err != nil {
		return err
	}
	n.modules, n.quiet = loader, loader.Quiet()
	events, err := uevent.Listen()
	if err != nil {
		return err
	}
	n.events = events
	n.loadOnArrival()
	guard.Loop(n.ctx, n.log, "device events", func(ctx context.Context) {
		if err := events.Run(ctx); err != nil {
			n.log.Error("device events end", "err", err)
		}
	})
	return nil
}

// loadOnArrival loads drivers for devices that the kernel announces.
func (n *node) loadOnArrival() {
	queue := make(chan string, arrivals)
	n.events.Subscribe(func(e uevent.Event) {
		alias := e.Env["MODALIAS"]
		if e.Action == uevent.Lost {
			alias = uevent.Lost
		} else if e.Action != "add" || alias == "" {
			return
		}
		select {
		case queue <- alias:
		default:
		}
	})
	guard.Loop(n.ctx, n.log, "drivers of new devices", func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case alias := <-queue:
				aliases := []string{alias}
				if alias == uevent.Lost {
					aliases, _ = kmod.Devices("/sys")
				}
				n.ask(aliases)
			}
		}
	})
}

// ask loads drivers. What fails is logged: a device without its driver is no
// reason to stop.
func (n *node) ask(aliases []string) {
	if err := n.modules.AskAll(aliases); err != nil {
		n.log.Warn("drivers", "err", err)
	}
}

// What stands in the modalias of devices: PCI classes, virtio's device types,
// disks on SCSI. virtio's own transport is on the way to both.
var (
	diskDevices    = []string{"bc01", "bc0Csc03", "pci:v00001AF4", "virtio:d00000002v", "virtio:d00000008v", "scsi:t-0x00"}
	networkDevices = []string{"bc02", "virtio:d00000001v"}
)

func isOne(kinds []string) func(alias string) bool {
	return func(alias string) bool {
		return slices.ContainsFunc(kinds, func(part string) bool { return strings.Contains(alias, part) })
	}
}

// loadForDisks loads the drivers of disks, of the controllers that they are
// behind, and of USB, which they may be on; and that of fw_cfg, which may hold
// the node's configuration.
func (n *node) loadForDisks(context.Context) error {
	err := loadNew(n.modules, isOne(diskDevices), "pci", "virtio", "scsi")
	if _, statErr := os.Stat(fwCfgDevice); statErr == nil {
		if loadErr := load(n.modules, "qemu_fw_cfg"); loadErr != nil && !errors.Is(loadErr, qverr.NoEnt) {
			n.log.Warn("fw_cfg", "err", loadErr)
		}
	}
	return err
}

// fwCfgDevice is the ACPI device of QEMU's fw_cfg.
const fwCfgDevice = "/sys/bus/acpi/devices/QEMU0002:00"

// loadForNetwork loads the drivers of network cards.
func (n *node) loadForNetwork(context.Context) error {
	return loadNew(n.modules, isOne(networkDevices), "pci", "virtio")
}

// loadForDevices loads the drivers of everything that is plugged.
func (n *node) loadForDevices(context.Context) error {
	return loadNew(n.quiet, func(string) bool { return true })
}

func loadNew(l *kmod.Loader, want func(alias string) bool, buses ...string) error {
	asked := make(map[string]bool)
	var errs []error
	for range passes {
		all, err := kmod.Devices("/sys", buses...)
		if err != nil {
			return err
		}
		var fresh []string
		for _, a := range all {
			if !asked[a] && want(a) {
				asked[a] = true
				fresh = append(fresh, a)
			}
		}
		if len(fresh) == 0 {
			break
		}
		if err := l.AskAll(fresh); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return qverr.New(qverr.CodeOf(err), "drivers: %w", err)
	}
	return nil
}

// loadNetwork loads the modules that the node's own network needs.
func (n *node) loadNetwork(context.Context) error { return loadList(n.modules, networkList) }

// loadAlways loads the modules of the image's list.
func (n *node) loadAlways(context.Context) error {
	err := loadList(n.quiet, moduleList)
	n.log.Info("modules", "loaded", n.modules.String())
	return err
}

func loadList(l *kmod.Loader, file string) error {
	names, err := kmod.ReadList(file)
	if err != nil {
		return err
	}
	return l.All(names)
}

// load loads one module for a step that can also do without the tables.
func load(l *kmod.Loader, name string) error {
	if l == nil {
		return qverr.New(qverr.NoEnt, "the image has no table of modules")
	}
	return l.Load(name)
}
