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
// success. The way to the daemon is kept short: what it can do without, or
// waits for by itself (GET /boot?wait=1), comes beside it.
func (n *node) sequence() []seq.Step {
	return []seq.Step{
		{Name: "root", Run: n.leaveInitramfs},
		{Name: "mounts", After: []string{"root"}, Run: n.mountFirst},
		{Name: "mounts-more", After: []string{"mounts"}, Run: n.mountRest},
		{Name: "command-line", After: []string{"mounts"}, Run: n.readCommandLine},
		{Name: "image", After: []string{"command-line"}, Run: n.checkImage},
		{Name: "consoles", After: []string{"command-line"}, Run: n.openConsoles},
		{Name: "control-groups", After: []string{"mounts"}, Run: n.controlGroups},
		{Name: "socket", After: []string{"mounts"}, Run: n.serveSocket},
		{Name: "clock", After: []string{"mounts"}, Run: readClock},

		// Drivers: those of disks and network cards first.
		{Name: "module-index", After: []string{"command-line"}, Run: n.openModules},
		{Name: "disks-and-nics", Needs: []string{"module-index"}, Run: n.loadForDisks},
		{Name: "data-volume", After: []string{"disks-and-nics"}, Limit: 40 * time.Second, Run: n.mountData},
		{Name: "daemon", After: []string{"data-volume", "consoles", "control-groups", "socket", "mounts-more", "image"}, Run: n.startDaemon},

		// Beside the daemon.
		{Name: "devices", Needs: []string{"module-index"}, After: []string{"disks-and-nics"}, Limit: time.Minute, Run: n.loadForDevices},
		{Name: "modules", Needs: []string{"module-index"}, After: []string{"daemon"}, Limit: time.Minute, Run: n.loadAlways},
		{Name: "kvm", After: []string{"daemon"}, Run: n.checkKVM},
		{Name: "iommu", After: []string{"daemon"}, Run: n.checkIOMMU},
		{Name: "cards", After: []string{"iommu", "modules"}, Run: n.bindCards},
		{Name: "watchdog", After: []string{"devices", "daemon"}, Run: n.startWatchdog},
		{Name: "power-button", After: []string{"devices", "daemon"}, Run: n.watchPowerButton},
		{Name: "rescue", After: []string{"consoles", "daemon"}, Run: n.startRescue},
	}
}

func (n *node) mountFirst(context.Context) error { return mount.All(mount.First) }

func (n *node) mountRest(context.Context) error {
	if err := mount.Links("/"); err != nil {
		return err
	}
	return mount.All(mount.Rest)
}

func (n *node) controlGroups(context.Context) error { return mount.ControlGroups("/sys/fs/cgroup") }

func readClock(context.Context) error { return clock.FromRTC(rtcDevice) }
