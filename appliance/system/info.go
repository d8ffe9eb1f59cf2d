package system

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// Info describes the node. Until PID 1's boot steps have ended it asks again.
func (s *Service) Info(ctx context.Context) (spec.SystemInfo, error) {
	boot := s.Boot()
	if s.Init != nil {
		if fresh, err := s.LoadBoot(ctx, false); err == nil {
			boot = fresh
		}
	}
	total, available := Memory()
	info := spec.SystemInfo{
		Mode:          spec.SystemInfoModeNormal,
		Rescue:        boot.Rescue,
		Version:       version.Version,
		Hostname:      s.Hostname(),
		NodeID:        s.nodeID,
		BootID:        boot.BootID,
		Time:          time.Now().UTC(),
		UptimeSeconds: uptime(),
		Kernel:        spec.KernelInfo{Release: boot.Kernel, Cmdline: boot.Cmdline},
		CPU:           cpu(),
		Memory: spec.MemoryInfo{
			TotalBytes: total, AvailableBytes: available,
			CommittedBytes: s.VMs.Committed(), AdmissibleBytes: s.VMs.Admissible(),
		},
		BootSteps:      nonNil(boot.Steps),
		KVM:            boot.KVM,
		IOMMU:          boot.IOMMU,
		Cards:          s.Cards.Overview(ctx),
		CryptoProvider: spec.SystemInfoCryptoProvider(s.Cards.Provider(ctx)),
		DataVolume:     s.dataVolume(boot.Data),
		Clock:          s.clock.Status(),
		TLS:            s.TLS(),
		Configuration:  s.Configuration(),
		Network:        s.Uplink(),
		Vms:            s.VMs.Counts(),
		Daemon: spec.DaemonInfo{
			Pid: os.Getpid(), StartedAt: s.started, Restarts: boot.Restarts,
			AdoptedVms: s.VMs.Adopted(), MemoryBytes: residentBytes(),
		},
		Trust:    s.Trust(ctx),
		Watchdog: boot.Watchdog,
	}
	info.IOMMU.Groups = nonNil(info.IOMMU.Groups)
	info.Problems = problems(info)
	return info, nil
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (s *Service) dataVolume(d initapi.DataVolume) spec.DataVolume {
	out := spec.DataVolume{Persistent: d.Persistent, Device: d.Device, PartUUID: d.PartUUID, SizeBytes: d.SizeBytes, Encrypted: d.Encrypted, Locked: d.Locked}
	if d.Problem != nil {
		out.Problem = *d.Problem
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.DataDir, &fs); err == nil {
		out.FreeBytes = int64(fs.Bavail) * fs.Bsize
		if out.SizeBytes == 0 {
			out.SizeBytes = int64(fs.Blocks) * fs.Bsize
		}
	}
	switch {
	case d.Locked:
		out.Message = "the encrypted data volume is shut: all state is in RAM until it is opened, and lost then or at reboot"
	case !d.Persistent:
		out.Message = "there is no data volume: all state is in RAM and lost at reboot"
	}
	return out
}

// problems collects everything that is missing or failed, each once. A clock
// that no time server has set yet is no fault of the node: it shows in clock.
func problems(info spec.SystemInfo) []spec.Problem {
	out := []spec.Problem{}
	seen := make(map[spec.Problem]bool)
	codes := make(map[int32]bool)
	add := func(p spec.Problem) {
		if p.Code != 0 && !seen[p] {
			seen[p], codes[p.Code] = true, true
			out = append(out, p)
		}
	}
	addPtr := func(p *initapi.Problem) {
		if p != nil {
			add(*p)
		}
	}
	addPtr(info.KVM.Problem)
	addPtr(info.IOMMU.Problem)
	for _, c := range info.Cards {
		add(c.Problem)
	}
	if len(info.Cards) == 0 {
		add(*initapi.NewProblem(qverr.New(qverr.QUACNotFound, "no QUAC 100 (PCI 1db7:0100) was found; cryptography runs in software")))
	}
	add(info.DataVolume.Problem)
	add(info.Network.Problem)
	for _, p := range info.Trust.Problems { // the rest is only missing
		if qverr.Code(p.Code) == qverr.PQCAttestation {
			add(p)
		}
	}
	for _, p := range info.Configuration.Problems {
		add(p)
	}
	// A step repeats what the part itself says in other words.
	for _, step := range info.BootSteps {
		if step.Problem != nil && !codes[step.Problem.Code] {
			add(*step.Problem)
		}
	}
	return out
}
