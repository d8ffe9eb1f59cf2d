package system

import (
	"os"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// RescueInfo describes a node whose daemon cannot start, by what PID 1 found and
// the kernel says. The caller fills in who answers: id, TLS and network.
func RescueInfo(boot initapi.Boot, dataDir string, started time.Time) spec.SystemInfo {
	s := Service{Deps: Deps{DataDir: dataDir}}
	total, available := Memory()
	info := spec.SystemInfo{
		Mode:           spec.SystemInfoModeRescue,
		Rescue:         boot.Rescue,
		Version:        version.Version,
		Hostname:       boot.Hostname,
		BootID:         boot.BootID,
		Time:           time.Now().UTC(),
		UptimeSeconds:  uptime(),
		Kernel:         spec.KernelInfo{Release: boot.Kernel, Cmdline: boot.Cmdline},
		CPU:            cpu(),
		Memory:         spec.MemoryInfo{TotalBytes: total, AvailableBytes: available},
		BootSteps:      nonNil(boot.Steps),
		KVM:            boot.KVM,
		IOMMU:          boot.IOMMU,
		Cards:          []spec.Card{},
		CryptoProvider: spec.SystemInfoCryptoProviderSoftware,
		DataVolume:     s.dataVolume(boot.Data),
		Daemon:         spec.DaemonInfo{Pid: os.Getpid(), StartedAt: started, Restarts: boot.Restarts, MemoryBytes: residentBytes()},
		Watchdog:       boot.Watchdog,
		Problems:       []spec.Problem{},
	}
	if info.Hostname == "" {
		info.Hostname, _ = os.Hostname()
	}
	info.IOMMU.Groups = nonNil(info.IOMMU.Groups)
	if boot.Rescue != nil {
		info.Problems = append(info.Problems, *initapi.NewProblem(qverr.New(qverr.Generic, "%s", boot.Rescue.Reason).
			WithHint("see the log (quantavirt log tail --source boot); then update, roll back, or try again: quantavirt system restart-daemon")))
	}
	if d := boot.Data.Problem; d != nil {
		info.Problems = append(info.Problems, *d)
	}
	return info
}

// NodeID is the node's id in its state file; "" if it has none yet.
func NodeID(tx *store.Tx) (string, error) {
	var n node
	err := tx.Get(store.Settings, nodeKey, &n)
	if qverr.CodeOf(err) == qverr.NoEnt {
		err = nil
	}
	return n.ID, err
}
