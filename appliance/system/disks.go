package system

import (
	"slices"
	"strings"

	"quantavirt/internal/disks"
)

// What a disk that the node itself stands on is used by.
const (
	UsedByData = "data volume"
	UsedByBoot = "boot medium"
)

// machine is where disks are looked for.
var machine = disks.Host{Sys: "/sys", Dev: "/dev", Proc: "/proc"}

// Disks lists the disks of the machine with what this node does with them.
func (s *Service) Disks() ([]disks.Disk, error) {
	all, err := machine.List()
	if err != nil {
		return nil, err
	}
	boot := s.Boot()
	for i := range all {
		d := &all[i]
		if boot.Data.Persistent && has(d, boot.Data.Device) {
			d.UsedBy = slices.DeleteFunc(d.UsedBy, func(u string) bool { return u == "mounted at "+s.DataDir })
			d.UsedBy = append([]string{UsedByData}, d.UsedBy...)
		}
		if has(d, boot.ESPDevice) {
			d.UsedBy = append([]string{UsedByBoot}, d.UsedBy...)
		}
	}
	return all, nil
}

// has tells whether a device is a disk or one of its partitions.
func has(d *disks.Disk, device string) bool {
	return strings.HasPrefix(device, "/dev/") && (d.Device == device ||
		slices.ContainsFunc(d.Partitions, func(p disks.DiskPartition) bool { return p.Device == device }))
}
