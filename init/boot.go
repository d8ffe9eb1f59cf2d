package main

import (
	"context"
	"time"

	"quantavirt/init/clock"
	"quantavirt/init/mount"
	"quantavirt/init/seq"
)

// sequence is the whole boot. Steps run at the same time unless they name each
// other: After waits for the end of a step, well or not; Needs also for its
// success.
//
// The way to the daemon's readiness is short, as more would only wait for each
// other on a small machine: the daemon starts beside the disks and waits for
// its data volume and its network by itself (GET /boot?step=NAME). All else waits
// until the API answers, or has had its head start, and is quiet: it takes the time
// that these leave. The controllers come last: they
// would weigh this process and the daemon against each other as two groups,
// whatever the priorities within.
func (n *node) sequence() []seq.Step {
	return []seq.Step{
		{Name: "root", Run: n.leaveInitramfs},
		{Name: "mounts", After: []string{"root"}, Run: n.mountFirst},
		{Name: "command-line", After: []string{"mounts"}, Run: n.readCommandLine},

		{Name: "module-index", After: []string{"command-line"}, Run: n.openModules},
		{Name: "watchdog", Needs: []string{"module-index"}, Run: n.earlyWatchdog},
		{Name: "disks", Needs: []string{"module-index"}, Run: n.loadForDisks},
		{Name: "boot-loader", After: []string{"module-index"}, Run: n.askLoader},
		{Name: "boot-medium", After: []string{"boot-loader", "disks"}, Limit: 40 * time.Second, Run: n.findMedium},
		{Name: dataStep, After: []string{"disks"}, Limit: dataLimit + checkLimit, Run: n.mountData},
		{Name: "network-cards", Needs: []string{"module-index"}, After: []string{"disks"}, Run: n.loadForNetwork},
		{Name: "network", Needs: []string{"module-index"}, Run: n.loadNetwork},

		{Name: "mounts-more", After: []string{"command-line"}, Run: n.mountRest},
		{Name: "control-groups", After: []string{"mounts-more"}, Run: n.makeGroups},
		{Name: "socket", After: []string{"control-groups"}, Run: n.serveSocket},
		{Name: "consoles", After: []string{"socket"}, Run: n.openConsoles},
		{Name: "image", After: []string{"consoles"}, Run: n.checkImage},
		{Name: "daemon", After: []string{"image"}, Run: n.startDaemon},
		{Name: "clock", After: []string{"daemon"}, Run: readClock},

		{Name: "head-start", After: []string{"daemon", "network"}, Run: n.awaitAPI},
		{Name: "own-group", After: []string{"head-start"}, Quiet: true, Run: n.joinGroup},
		{Name: "rescue", After: []string{"own-group"}, Run: n.startRescue},
		{Name: "modules", Needs: []string{"module-index"}, After: []string{"head-start"}, Limit: time.Minute, Quiet: true, Run: n.loadAlways},
		{Name: "iommu", After: []string{"modules"}, Quiet: true, Run: n.checkIOMMU},
		{Name: "cards", After: []string{"iommu"}, Quiet: true, Run: n.bindCards},
		{Name: "kvm", After: []string{"modules"}, Limit: time.Minute, Quiet: true, Run: n.checkKVM},
		{Name: "devices", Needs: []string{"module-index"}, After: []string{"modules"}, Limit: time.Minute, Quiet: true, Run: n.loadForDevices},
		{Name: "late-watchdog", After: []string{"watchdog", "devices"}, Run: n.startWatchdog},
		{Name: "power-button", After: []string{"devices"}, Quiet: true, Run: n.watchPowerButton},
		{Name: "controllers", After: []string{"own-group", "cards", "kvm", "devices"}, Quiet: true, Run: n.controllers},
	}
}

func (n *node) mountFirst(context.Context) error { return mount.All(mount.First) }

func (n *node) mountRest(context.Context) error {
	if err := mount.Links("/"); err != nil {
		return err
	}
	return mount.All(mount.Rest)
}

func (n *node) makeGroups(context.Context) error { return mount.MakeGroups(cgroupRoot) }

func (n *node) joinGroup(context.Context) error { return mount.Join(cgroupRoot) }

func (n *node) controllers(context.Context) error { return mount.Controllers(cgroupRoot) }

// headStart is how long the rest of the boot leaves the machine to the API: most
// nodes need a third of it. A network that does not answer holds nobody up longer.
const headStart = 3 * time.Second

func (n *node) awaitAPI(ctx context.Context) error {
	limit := time.NewTimer(headStart)
	defer limit.Stop()
	select {
	case <-n.api:
	case <-limit.C:
	case <-ctx.Done():
	}
	return nil
}

func readClock(context.Context) error { return clock.FromRTC(rtcDevice) }
