package process

import (
	"os"
	"time"

	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/balloon"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// statsTime is how long the guest has to say how it fares.
const statsTime = 200 * time.Millisecond

func (vm *VM) addBalloon(map[string]*os.File) error {
	cfg := vm.cfg.Balloon
	if cfg == nil {
		return nil
	}
	dev, err := balloon.New(vm.machine.Memory(), cfg.Target)
	if err != nil {
		return err
	}
	vm.balloon = dev
	return vm.add(slotAny, dev, virtio.ClassOther, vmm.Device{ID: "balloon", Kind: "virtio-balloon"})
}

// putBalloon changes how much memory is left to the guest.
func (vm *VM) putBalloon(_ string, body vmm.BalloonSetting) error {
	if vm.balloon == nil {
		return qverr.New(qverr.NoEnt, "the VM has no balloon")
	}
	return vm.balloon.SetTarget(body.Target)
}

// balloonStats reads the balloon, and asks the guest.
func (vm *VM) balloonStats() *vmm.BalloonStats {
	if vm.balloon == nil {
		return nil
	}
	state := vm.balloon.State()
	s := &vmm.BalloonStats{Target: state.Target, Actual: state.Actual, Inflated: state.Inflated, Reported: state.Reported, Ready: state.Ready}
	if g := vm.balloon.Statistics(statsTime); g != nil {
		s.Guest = &vmm.GuestMemory{Time: g.Time, Free: g.Free, Total: g.Total, Available: g.Available, Caches: g.Caches,
			SwapIn: g.SwapIn, SwapOut: g.SwapOut, MajorFaults: g.MajorFaults, MinorFaults: g.MinorFaults, OOMKills: g.OOMKills}
	}
	return s
}
