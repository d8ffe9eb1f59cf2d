package process

import (
	"errors"
	"fmt"
	"os"

	"quantavirt/hv/config"
	hvfio "quantavirt/hv/vfio"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// passthrough is the functions of the host that the VM has.
type passthrough struct{ functions []function }

type function struct {
	dev  *hvfio.Function
	info vmm.Device
}

// addPCI gives the guest functions of the host, from the last slot down: so that
// neither disks nor network devices move.
func (vm *VM) addPCI(files map[string]*os.File) error {
	if len(vm.cfg.PCI) == 0 {
		return nil
	}
	if err := hvfio.MapMemory(vfio.NewContainer(files[vm.cfg.VFIO]), vm.machine.Memory()); err != nil {
		return err
	}
	for i, p := range vm.cfg.PCI {
		if err := vm.addFunction(slotEnd-1-i, p, files[p.Device]); err != nil {
			return err
		}
	}
	return nil
}

func (vm *VM) addFunction(slot int, p config.PCI, file *os.File) error {
	hw, err := vfio.Inherited(p.Address, file)
	if err != nil {
		return err
	}
	// The kernel gives a device back once nobody has it open: only hw is left.
	file.Close()
	dev, err := hvfio.New(hw, hvfio.Options{Fail: vm.machine.Fail, Log: vm.log.With("device", p.Address)})
	if err != nil {
		return err
	}
	bus := vm.machine.Bus()
	if err = bus.Add(slot, dev.PCI()); errors.Is(err, qverr.Exist) {
		err = bus.Add(slotAny, dev.PCI())
	}
	if err != nil {
		dev.Close()
		return err
	}
	vm.pci.functions = append(vm.pci.functions, function{dev, vmm.Device{ID: p.Address, Kind: "vfio-pci",
		Backend: p.Address, Address: fmt.Sprintf("00:%02x.0", dev.PCI().Slot())}})
	return nil
}

func (p *passthrough) info() (list []vmm.Device) {
	for _, f := range p.functions {
		d := f.info
		d.Ready = f.dev.InUse()
		list = append(list, d)
	}
	return list
}

// closePCI takes the functions away, and with them their hold on the guest's memory. The
// machine has ended.
func (vm *VM) closePCI() {
	for _, f := range vm.pci.functions {
		f.dev.Close()
	}
}
