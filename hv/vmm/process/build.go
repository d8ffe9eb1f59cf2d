package process

import (
	"fmt"
	"log/slog"
	"os"

	"quantavirt/hv/config"
	"quantavirt/hv/limit"
	"quantavirt/hv/machine"
	"quantavirt/hv/virtio"
	vconsole "quantavirt/hv/virtio/console"
	"quantavirt/hv/virtio/rng"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
)

// Slots of the PCI bus. Disks and network devices have ranges of their own, so
// that adding a disk does not rename a guest's interface.
const (
	slotConsole = 1
	slotRNG     = 2
	slotVsock   = 3
	slotDisks   = 4
	slotNICs    = 20
	slotEnd     = 32
	slotAny     = -1
)

// device is one device on the bus.
type device struct {
	transport *virtio.Transport
	info      vmm.Device
}

// build makes the machine and all that is in it. On an error the caller ends the
// process, which frees what was made.
func (vm *VM) build(files map[string]*os.File) error {
	cfg := vm.cfg
	if err := vm.buildConsoles(files); err != nil {
		return err
	}
	generation, err := cfg.GenerationID()
	if err != nil {
		return err
	}
	m, err := machine.New(machine.Options{
		Generation: generation,
		CPUs:       cfg.CPUs, CPU: cfg.CPU, Memory: cfg.Memory, MemoryFrom: cfg.MemoryFrom, Cmdline: cfg.Boot.Cmdline,
		KVM: files[config.FileKVM], Kernel: files[cfg.Boot.Kernel], Unpacked: files[cfg.Boot.Unpacked], Initrd: files[cfg.Boot.Initrd],
		Firmware: vm.firmware(files),
		Serial:   vm.consoles[vmm.ConsoleSerial].ring, OnState: vm.machineState, Log: vm.log,
	})
	if err != nil {
		return err
	}
	vm.machine = m
	vm.consoles[vmm.ConsoleSerial].setInput(m.SerialInput())
	for _, step := range []func(map[string]*os.File) error{vm.addBasics, vm.addDisks, vm.addNICs, vm.addBalloon, vm.addPCI, vm.setBootOrder} {
		if err := step(files); err != nil {
			return err
		}
	}
	return nil
}

func (vm *VM) buildConsoles(files map[string]*os.File) error {
	for name, file := range map[string]string{vmm.ConsoleSerial: vm.cfg.SerialLog, vmm.ConsoleVirtio: vm.cfg.ConsoleLog} {
		r := (*ring.Ring)(nil)
		if file == "" {
			r = ring.NewMemory(memoryRing)
		} else {
			var err error
			if r, err = ring.Open(files[file]); err != nil {
				return err
			}
		}
		vm.consoles[name] = &console{ring: r}
	}
	return nil
}

// add puts a device on the bus.
func (vm *VM) add(slot int, dev virtio.Device, class uint32, info vmm.Device) error {
	t, err := virtio.NewTransport(info.ID, dev, class, vm.machine.Memory(), func(err error) {
		vm.log.Warn("a device stopped", "device", info.ID, "err", err)
	})
	if err != nil {
		return err
	}
	if err := vm.machine.Bus().Add(slot, t.PCI()); err != nil {
		t.Close()
		return err
	}
	info.Address = fmt.Sprintf("00:%02x.0", t.PCI().Slot())
	vm.devices = append(vm.devices, device{t, info})
	return nil
}

func (vm *VM) addBasics(files map[string]*os.File) error {
	out := vm.consoles[vmm.ConsoleVirtio]
	con, err := vconsole.New(out.ring, vconsole.Options{Ports: vm.cfg.Ports, Limit: limit.New(consoleLimits)})
	if err != nil {
		return err
	}
	vm.virtioConsole = con
	out.setInput(con)
	if err := vm.add(slotConsole, con, virtio.ClassComm, vmm.Device{ID: "console", Kind: "virtio-console"}); err != nil {
		return err
	}
	if err := vm.add(slotRNG, rng.New(limit.New(limit.Limits{Bytes: vm.cfg.RNGLimit})), virtio.ClassOther, vmm.Device{ID: "rng", Kind: "virtio-rng", Backend: "getrandom"}); err != nil {
		return err
	}
	return vm.addVsock(files)
}

// close takes everything apart. The machine has ended.
func (vm *VM) close(log *slog.Logger) {
	vm.closePCI()
	for _, d := range vm.devices {
		d.transport.Close()
	}
	for _, n := range vm.nics {
		n.dev.Close()
	}
	if vm.sockets != nil {
		vm.dialer.close()
		vm.sockets.Close()
	}
	for _, d := range vm.disks {
		if err := d.backend.Flush(); err != nil {
			log.Error("a disk could not be flushed at the end", "disk", d.id, "err", err)
		}
		_ = d.backend.Close()
	}
	for _, c := range vm.consoles {
		c.ring.Close()
	}
	vm.machine.Close()
}
