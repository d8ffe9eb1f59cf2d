package process

import (
	"errors"
	"testing"

	"quantavirt/hv/limit"
	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// limitedDevice is a device with limits and without queues.
type limitedDevice struct {
	virtio.Device
	limiter *limit.Limiter
}

func (limitedDevice) Type() uint16           { return virtio.TypeBlock }
func (limitedDevice) Features() uint64       { return 0 }
func (limitedDevice) QueueSizes() []uint16   { return nil }
func (limitedDevice) Deactivate()            {}
func (d limitedDevice) Limits() limit.Limits { return d.limiter.Limits() }

func (d limitedDevice) SetLimits(l limit.Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	d.limiter.Set(l)
	return nil
}

func TestSetLimits(t *testing.T) {
	vm, path := newTestVM(t, vmm.StateStarting)
	c := vmm.NewClient(path)
	ops, bytes := limit.Rate{PerSecond: 100, Burst: 7}, limit.Rate{PerSecond: 1 << 20}
	if _, err := c.SetLimits(t.Context(), "disk0", vmm.LimitsPatch{Operations: &ops}); !errors.Is(err, qverr.State) {
		t.Errorf("before the machine is there: %v", err)
	}
	mem, err := memory.New(memory.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	transport, err := virtio.NewTransport("disk0", limitedDevice{limiter: limit.New(limit.Limits{})}, virtio.ClassStorage, mem, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close()
	vm.devices = []device{{transport, vmm.Device{ID: "disk0"}}}
	vm.advance(vmm.ActionStarted)
	for _, tc := range []struct {
		name, device string
		patch        vmm.LimitsPatch
		want         limit.Limits
		code         qverr.Code
	}{
		{"operations", "disk0", vmm.LimitsPatch{Operations: &ops}, limit.Limits{Operations: ops}, 0},
		{"bytes beside them", "disk0", vmm.LimitsPatch{Bytes: &bytes}, limit.Limits{Operations: ops, Bytes: bytes}, 0},
		{"nothing", "disk0", vmm.LimitsPatch{}, limit.Limits{Operations: ops, Bytes: bytes}, 0},
		{"operations without a limit", "disk0", vmm.LimitsPatch{Operations: &limit.Rate{}}, limit.Limits{Bytes: bytes}, 0},
		{"out of range", "disk0", vmm.LimitsPatch{Bytes: &limit.Rate{Burst: 1}}, limit.Limits{}, qverr.Inval},
		{"no such device", "disk1", vmm.LimitsPatch{}, limit.Limits{}, qverr.NoEnt},
	} {
		got, err := c.SetLimits(t.Context(), tc.device, tc.patch)
		if got != tc.want || qverr.CodeOf(err) != tc.code {
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		}
	}
}
