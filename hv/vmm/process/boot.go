package process

import (
	"os"

	"github.com/google/uuid"

	"quantavirt/hv/machine"
	"quantavirt/hv/pci"
)

// firmware is what the machine starts instead of a kernel, nil for none.
func (vm *VM) firmware(files map[string]*os.File) *machine.Firmware {
	b := &vm.cfg.Boot
	if b.Firmware == "" {
		return nil
	}
	id, err := uuid.Parse(vm.cfg.UUID)
	if err != nil {
		id = uuid.Nil // a machine without one
	}
	return &machine.Firmware{Image: files[b.Firmware], NetROM: files[b.NetROM], UUID: id}
}

// setBootOrder tells the firmware the slots of the devices to boot from.
func (vm *VM) setBootOrder(map[string]*os.File) error {
	var order []*pci.Device
	for _, id := range vm.cfg.Boot.Order {
		for _, d := range vm.devices {
			if d.info.ID == id {
				order = append(order, d.transport.PCI())
			}
		}
	}
	return vm.machine.SetBootOrder(order)
}
