package support

import (
	"context"
	"errors"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// maxConsole is how much of each console of a VM is taken, in bytes: the end.
const maxConsole = 64 << 10

// VMs is what the part needs of the virtual machines.
type VMs interface {
	List() []spec.VM
	Stats(ctx context.Context, name string) (spec.VMStats, error)
	ConsoleLog(name, device string) ([]byte, error)
	Crash(name string) (vmm.CrashReport, error)
}

// Machines is the part with the virtual machines: a folder each, with what the VM is,
// what it uses if it runs, its last crash, and the end of its consoles.
func Machines(vms VMs) Part {
	return Part{Name: PartVMs, Items: func() []Item {
		var items []Item
		for _, v := range vms.List() {
			items = append(items, Item{Name: v.Name, Collect: func(ctx context.Context, add func(File) error) error {
				return machine(ctx, vms, v, add)
			}})
		}
		return items
	}}
}

func machine(ctx context.Context, vms VMs, v spec.VM, add func(File) error) error {
	folder := v.Name + "/"
	errs := []error{add(File{Name: folder + "vm.json", Value: v})}
	stats, err := vms.Stats(ctx, v.Name)
	switch {
	case err == nil:
		errs = append(errs, add(File{Name: folder + "stats.json", Value: stats}))
	case !errors.Is(err, qverr.State): // it does not run
		errs = append(errs, err)
	}
	crash, err := vms.Crash(v.Name)
	switch {
	case err == nil:
		errs = append(errs, add(File{Name: folder + "crash.json", Value: crash}))
	case !errors.Is(err, qverr.NoEnt): // it never crashed
		errs = append(errs, err)
	}
	for _, device := range []spec.VMConfigConsole{spec.VMConfigConsoleVirtioConsole, spec.VMConfigConsoleSerial} {
		text, err := vms.ConsoleLog(v.Name, string(device))
		if err == nil && len(text) > 0 {
			err = add(lastOf(folder+string(device)+".log", text, maxConsole))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
