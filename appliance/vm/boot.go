package vm

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// Files of Deps.Firmware.
const (
	seabiosFile = "bios-256k.bin"
	netROMFile  = "pxe-virtio.rom"
)

// defaultOrder is what a VM boots from by firmware when boot.order does not say.
var defaultOrder = []spec.BootConfigOrder{spec.BootConfigOrderDisk}

func checkBoot(c *spec.VMConfig) error {
	b := &c.Boot
	switch {
	case b.Firmware == spec.BootConfigFirmwareOvmf:
		return unsupported("boot.firmware", "ovmf").WithHint(`leave boot.firmware out for SeaBIOS, or set it to "direct" and name boot.kernel`)
	case b.Firmware == spec.BootConfigFirmwareDirect && b.Kernel == "":
		return invalid("boot.kernel", "direct boot needs a kernel")
	case b.Firmware == spec.BootConfigFirmwareDirect:
		return nil
	case b.Kernel != "":
		return seabiosHasNo("boot.kernel", "kernel")
	case b.Initrd != "":
		return seabiosHasNo("boot.initrd", "initrd")
	case b.Cmdline != "":
		return seabiosHasNo("boot.cmdline", "command line")
	}
	for i, from := range b.Order {
		if from == spec.BootConfigOrderCdrom {
			return unsupported("boot.order", "a CD drive").WithHint("a hybrid ISO boots as a read-only disk")
		}
		if slices.Contains(b.Order[:i], from) {
			return invalid("boot.order", "%s stands twice", from)
		}
	}
	seen := make(map[int]int)
	for i, d := range c.Storage {
		if j, twice := seen[d.BootOrder]; twice && d.BootOrder != 0 {
			return invalid(indexed("storage", i, ".boot_order"), "%d is that of storage[%d]", d.BootOrder, j)
		}
		seen[d.BootOrder] = i
	}
	return nil
}

func seabiosHasNo(path, what string) error {
	return invalid(path, "the %s of a guest that SeaBIOS starts is on its disk", what)
}

// bootOrder has the ids of the devices that firmware tries. Disks with a boot_order
// come by it, before those without, which come as they stand.
func bootOrder(c *spec.VMConfig) []string {
	order := c.Boot.Order
	if len(order) == 0 {
		order = defaultOrder
	}
	var ids []string
	for _, from := range order {
		if from == spec.BootConfigOrderNetwork {
			for i := range c.Network {
				ids = append(ids, nicID(i))
			}
			continue
		}
		disks := make([]int, len(c.Storage))
		for i := range disks {
			disks[i] = i
		}
		rank := func(i int) uint { return uint(c.Storage[i].BootOrder) - 1 } // none is last
		slices.SortStableFunc(disks, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
		for _, i := range disks {
			ids = append(ids, diskID(i))
		}
	}
	return ids
}

func diskID(i int) string { return "disk" + strconv.Itoa(i) }
func nicID(i int) string  { return "nic" + strconv.Itoa(i) }

// openFirmware gives the VM SeaBIOS, and the ROM to boot from a network if it shall.
func (s *Service) openFirmware(m *machine, plan *vmm.Spec) error {
	plan.Machine.Boot = config.Boot{Firmware: fileFirmware, Order: bootOrder(&m.rec.Config)}
	files := map[string]string{fileFirmware: seabiosFile}
	if slices.Contains(m.rec.Config.Boot.Order, spec.BootConfigOrderNetwork) {
		plan.Machine.Boot.NetROM = fileNetROM
		files[fileNetROM] = netROMFile
	}
	for id, name := range files {
		f, err := os.Open(filepath.Join(s.Firmware, name))
		if err != nil {
			return qverr.New(qverr.VMStart, "firmware of VM %s: %w", m.rec.Config.Name, err)
		}
		plan.Files[id] = f
	}
	return nil
}
