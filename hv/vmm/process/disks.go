package process

import (
	"os"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/blk"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

type disk struct {
	id      string
	dev     *blk.Device
	backend block.Device
}

func (vm *VM) addDisks(files map[string]*os.File) error {
	for i, d := range vm.cfg.Disks {
		raw, err := block.OpenRaw(files[d.File], block.Options{ReadOnly: d.ReadOnly, Cache: block.Cache(d.Cache)})
		if err != nil {
			return err
		}
		dev, err := blk.New(raw, blk.Options{ReadOnly: d.ReadOnly, Discard: d.Discard, Serial: d.Serial, Queues: d.Queues,
			Writethrough: block.Cache(d.Cache) == block.CacheWritethrough, Limits: d.Limits,
			Log: func(err error) { vm.log.Error("a request of the guest failed", "disk", d.ID, "err", err) }})
		if err != nil {
			return err
		}
		if err := vm.add(slotDisks+i, dev, virtio.ClassStorage, vmm.Device{ID: d.ID, Kind: "virtio-blk", Backend: d.Format}); err != nil {
			return err
		}
		vm.disks = append(vm.disks, disk{d.ID, dev, raw})
	}
	return nil
}

func (d disk) stats() vmm.DiskStats {
	s := d.dev.Stats()
	l := vmm.LatencyStats{SumUS: s.Latency.Sum.Microseconds(), MaxUS: s.Latency.Max.Microseconds(), Histogram: s.Latency.Buckets[:]}
	for _, n := range l.Histogram {
		l.Count += n
	}
	return vmm.DiskStats{ID: d.id, Reads: s.Reads, ReadBytes: s.ReadBytes, Writes: s.Writes, WriteBytes: s.WriteBytes,
		Flushes: s.Flushes, Discards: s.Discards, Errors: s.Errors, Throttled: s.Throttled, Latency: l}
}

// putDisk changes what the control socket may change of a disk.
func (vm *VM) putDisk(id string, s vmm.DiskSetting) error {
	for _, d := range vm.disks {
		if d.id != id {
			continue
		}
		if s.Limits == nil {
			return nil
		}
		return d.dev.SetLimits(*s.Limits)
	}
	return qverr.New(qverr.NoEnt, "no disk %q", id)
}
