package vm

import (
	"context"
	"reflect"
	"strconv"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/limit"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

func diskID(i int) string { return "disk" + strconv.Itoa(i) }

// diskLimits are those of a configuration; the bursts are those that package limit
// takes by itself.
func diskLimits(d *spec.StorageConfig) limit.Limits {
	return limit.Limits{Operations: limit.Rate{PerSecond: uint64(d.Iops)}, Bytes: limit.Rate{PerSecond: uint64(d.Bandwidth)}}
}

// changedLimits lists the devices whose limits differ, and tells whether nothing else
// does.
func changedLimits(from, to *spec.VMConfig) (map[string]limit.Limits, bool) {
	changed := map[string]limit.Limits{}
	if len(from.Storage) != len(to.Storage) {
		return nil, false
	}
	bare := *to
	bare.Storage = make([]spec.StorageConfig, len(to.Storage))
	for i := range to.Storage {
		bare.Storage[i] = to.Storage[i]
		bare.Storage[i].Iops, bare.Storage[i].Bandwidth = from.Storage[i].Iops, from.Storage[i].Bandwidth
		if l := diskLimits(&to.Storage[i]); l != diskLimits(&from.Storage[i]) {
			changed[diskID(i)] = l
		}
	}
	if len(from.Storage) == 0 {
		bare.Storage = from.Storage
	}
	return changed, reflect.DeepEqual(&bare, from)
}

// setLimits changes the limits of a VM that runs. It needs the lock, and gives it up
// while the VM process works; no other action begins meanwhile.
func (s *Service) setLimits(m *machine, changed map[string]limit.Limits) error {
	r := m.run
	if r == nil {
		return stuck(m.rec.Config.Name)
	}
	name := m.rec.Config.Name
	ctx, cancel := context.WithTimeout(s.ctx, callTime)
	defer cancel()
	op := &operation{action: ActLimit, cancel: cancel, done: make(chan struct{})}
	m.op = op
	s.mu.Unlock()
	var err error
	for id, l := range changed {
		if _, err = r.proc.Control().SetLimits(ctx, id, vmm.LimitsPatch{Operations: &l.Operations, Bytes: &l.Bytes}); err != nil {
			break
		}
	}
	s.mu.Lock()
	if m.op == op {
		m.op = nil
	}
	close(op.done)
	if err != nil {
		return coded(qverr.Generic, err, "change the limits of VM %s", name)
	}
	return nil
}
