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
// The way to the daemon is two short chains, as more would only wait for each
// other on a small machine. What the daemon can do without, or waits for by
// itself (GET /boot?wait=1), comes beside it, and first what its network needs.
func (n *node) sequence() []seq.Step {
	return []seq.Step{
		{Name: "root", Run: n.leaveInitramfs},
		{Name: "mounts", After: []string{"root"}, Run: n.mountFirst},
		{Name: "command-line", After: []string{"mounts"}, Run: n.readCommandLine},

		{Name: "module-index", After: []string{"command-line"}, Run: n.openModules},
		{Name: "disks", Needs: []string{"module-index"}, Run: n.loadForDisks},
		{Name: "boot-medium", After: []string{"disks"}, Limit: 40 * time.Second, Run: n.findMedium},
		{Name: dataStep, After: []string{"disks"}, Limit: dataLimit + checkLimit, Run: n.mountData},

		{Name: "mounts-more", After: []string{"command-line"}, Run: n.mountRest},
		{Name: "control-groups", After: []string{"mounts-more"}, Run: n.makeGroups},
		{Name: "socket", After: []string{"control-groups"}, Run: n.serveSocket},
		{Name: "consoles", After: []string{"socket"}, Run: n.openConsoles},
		{Name: "image", After: []string{"consoles"}, Run: n.checkImage},

		{Name: "daemon", After: []string{dataStep, "image"}, Run: n.startDaemon},

		{Name: "network-cards", Needs: []string{"module-index"}, After: []string{"disks"}, Run: n.loadForNetwork},
		{Name: "modules", Needs: []string{"module-index"}, After: []string{"daemon", "network-cards"}, Limit: time.Minute, Run: n.loadAlways},
		{Name: "controllers", After: []string{"daemon"}, Run: n.controllers},
		{Name: "clock", After: []string{"controllers"}, Run: readClock},
		{Name: "rescue", After: []string{"controllers"}, Run: n.startRescue},
		{Name: "iommu", After: []string{"modules"}, Run: n.checkIOMMU},
		{Name: "cards", After: []string{"iommu"}, Run: n.bindCards},
		{Name: "kvm", After: []string{"modules"}, Run: n.checkKVM},
		{Name: "devices", Needs: []string{"module-index"}, After: []string{"modules"}, Limit: time.Minute, Run: n.loadForDevices},
		{Name: "watchdog", After: []string{"devices"}, Run: n.startWatchdog},
		{Name: "power-button", After: []string{"devices"}, Run: n.watchPowerButton},
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

func (n *node) controllers(context.Context) error { return mount.Controllers(cgroupRoot) }

func readClock(context.Context) error { return clock.FromRTC(rtcDevice) }
