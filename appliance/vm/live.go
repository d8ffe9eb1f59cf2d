package vm

import (
	"context"
	"reflect"
	"slices"
	"strconv"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// What of a configuration can change while its VM runs:
//
//	memory.balloon_target   the guest is asked to give memory back, or gets it again
//	storage[].iops and bandwidth
//	cpu.shares, cpu.limit   by its cgroup
//	network[].bandwidth     of a card that was started with one; QV_ERR_STATE with vhost-net

// onlyLive tells whether nothing else differs.
func onlyLive(old, c *spec.VMConfig) bool {
	still := *c
	still.Memory.BalloonTarget = old.Memory.BalloonTarget
	still.CPU.Shares, still.CPU.Limit = old.CPU.Shares, old.CPU.Limit
	still.Network = slices.Clone(c.Network)
	for i := range min(len(old.Network), len(still.Network)) {
		still.Network[i].Bandwidth = old.Network[i].Bandwidth
	}
	still.Storage = slices.Clone(c.Storage)
	for i := range min(len(old.Storage), len(still.Storage)) {
		still.Storage[i].Iops, still.Storage[i].Bandwidth = old.Storage[i].Iops, old.Storage[i].Bandwidth
	}
	return reflect.DeepEqual(old, &still)
}

// changeLive makes the process of m follow c. It needs the lock, which it gives up while
// it waits for the process; an action under way on the VM goes first.
func (s *Service) changeLive(ctx context.Context, m *machine, c *spec.VMConfig) error {
	if m.op != nil {
		return qverr.New(qverr.Busy, "VM %s: %s is under way", c.Name, m.op.action).With("task", m.op.task)
	}
	r, old, at := m.run, m.rec.Config, m.rec.UpdatedAt
	s.mu.Unlock()
	err := s.applyCPU(&old, c)
	if err == nil {
		err = applyLive(ctx, r.proc.Control(), &old, c)
	}
	s.mu.Lock()
	if err == nil && (m.run != r || m.rec.UpdatedAt != at) {
		err = qverr.New(qverr.Busy, "VM %s changed meanwhile", c.Name)
	}
	return err
}

// applyCPU needs no process: the kernel keeps the limits.
func (s *Service) applyCPU(old, c *spec.VMConfig) error {
	dir := s.cgroup(c.Name)
	if c.CPU.Shares == old.CPU.Shares && c.CPU.Limit == old.CPU.Limit || dir == "" {
		return nil
	}
	if err := vmm.SetCPU(dir, uint64(c.CPU.Shares), c.CPU.Limit); err != nil {
		return coded(qverr.Generic, err, "cpu.shares and cpu.limit of VM %s", c.Name)
	}
	return nil
}

func applyLive(ctx context.Context, control Control, old, c *spec.VMConfig) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for i := range c.Storage {
		l := diskLimits(&c.Storage[i])
		if l == diskLimits(&old.Storage[i]) {
			continue
		}
		if err := control.SetDiskLimits(ctx, diskID(i), l); err != nil {
			return coded(qverr.Generic, err, "limits of %s of VM %s", indexed("storage", i, ""), c.Name)
		}
	}
	for i := range c.Network {
		if c.Network[i].Bandwidth == old.Network[i].Bandwidth {
			continue
		}
		if err := control.SetNICLimits(ctx, "nic"+strconv.Itoa(i), bandwidthOf(&c.Network[i])); err != nil {
			return coded(qverr.Generic, err, "%s of VM %s", indexed("network", i, ".bandwidth"), c.Name)
		}
	}
	if c.Memory.BalloonTarget == old.Memory.BalloonTarget {
		return nil
	}
	target := c.Memory.BalloonTarget
	if target == 0 {
		target = c.Memory.Size
	}
	if err := control.SetBalloon(ctx, int64(target)); err != nil {
		return coded(qverr.Balloon, err, "memory.balloon_target of VM %s", c.Name)
	}
	return nil
}

func checkBalloon(c *spec.VMConfig) error {
	m := &c.Memory
	switch {
	case m.Balloon && m.Hugepages != spec.MemoryConfigHugepagesOff:
		return invalid("memory.balloon", "the balloon gives back pages of 4 KiB: none of a huge page is free by that")
	case m.BalloonTarget == 0:
		return nil
	case !m.Balloon:
		return invalid("memory.balloon_target", "memory.balloon is not set")
	case m.BalloonTarget < 16<<20 || m.BalloonTarget > m.Size || m.BalloonTarget%4096 != 0:
		return invalid("memory.balloon_target", "%d bytes: a multiple of 4096 from 16M to memory.size is needed", int64(m.BalloonTarget))
	}
	return nil
}

func balloonOf(c *spec.VMConfig) *config.Balloon {
	if !c.Memory.Balloon {
		return nil
	}
	return &config.Balloon{Target: int64(c.Memory.BalloonTarget)}
}
