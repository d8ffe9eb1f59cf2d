package process

import (
	"net"
	"os"

	"quantavirt/hv/virtio"
	vnet "quantavirt/hv/virtio/net"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

type nic struct {
	id  string
	dev *vnet.Device
}

func (vm *VM) addNICs(files map[string]*os.File) error {
	for i := range vm.cfg.NICs {
		if err := vm.addNIC(i, files); err != nil {
			return err
		}
	}
	return nil
}

func (vm *VM) addNIC(i int, files map[string]*os.File) error {
	n := &vm.cfg.NICs[i]
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return qverr.New(qverr.NetMAC, "network device %s: %w", n.ID, err)
	}
	dev, err := vnet.New(filesOf(files, n.TAPs()), vnet.Options{MAC: mac, MTU: n.MTU,
		Vhost: filesOf(files, n.Vhosts()), Mem: vm.machine.Memory(), Limits: n.Limits})
	if err != nil {
		return err
	}
	backend := "tap"
	if dev.Vhost() {
		backend = "vhost-net"
	}
	slot := slotNICs + i
	if slot >= slotEnd {
		slot = slotAny
	}
	vm.nics = append(vm.nics, nic{n.ID, dev})
	return vm.add(slot, dev, virtio.ClassNetwork, vmm.Device{ID: n.ID, Kind: "virtio-net", Backend: backend})
}

func filesOf(files map[string]*os.File, names []string) []*os.File {
	var list []*os.File
	for _, name := range names {
		list = append(list, files[name])
	}
	return list
}

// putNIC changes a network device while the guest runs: its cable, its limits.
func (vm *VM) putNIC(id string, body vmm.NICSetting) error {
	for _, n := range vm.nics {
		if n.id != id {
			continue
		}
		if body.Limits != nil {
			if err := n.dev.SetLimits(*body.Limits); err != nil {
				return err
			}
		}
		if body.Link != nil {
			return n.dev.SetLink(*body.Link)
		}
		return nil
	}
	return qverr.New(qverr.NoEnt, "no network device %q", id)
}
