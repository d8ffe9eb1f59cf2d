package main

import (
	"flag"
	"os"
	"strings"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// bootOptions are those of a guest that firmware starts.
type bootOptions struct {
	firmware, netROM, order string
}

func (b *bootOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&b.firmware, "firmware", "", "start SeaBIOS from `FILE` (bios-256k.bin) instead of a kernel")
	fs.StringVar(&b.netROM, "net-rom", "", "option ROM `FILE` by which SeaBIOS boots from a network (pxe-virtio.rom)")
	fs.StringVar(&b.order, "boot", "", "`LIST` of what SeaBIOS tries, as disk0,nic0; by default all disks")
}

// checkBoot refuses a start of nothing and of two things. With firmware the console
// is the serial port, if nothing else is asked for.
func (o *options) checkBoot(fs *flag.FlagSet) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case o.boot.firmware == "" && o.kernel == "":
		return qverr.New(qverr.Inval, "--kernel or --firmware is needed")
	case o.boot.firmware == "" && (o.boot.netROM != "" || o.boot.order != ""):
		return qverr.New(qverr.Inval, "--net-rom and --boot belong to --firmware")
	case o.boot.firmware != "" && (o.kernel != "" || o.unpacked != "" || o.initrd != "" || given["cmdline"]):
		return qverr.New(qverr.Inval, "--firmware starts what is on the disks: no kernel, initrd or command line goes with it")
	}
	if o.boot.firmware != "" && !given["console"] {
		o.console = vmm.ConsoleSerial
	}
	return nil
}

// fill opens the files of the firmware.
func (b *bootOptions) fill(boot *config.Boot, open func(name, path string, flags int) error) error {
	boot.Firmware = "firmware"
	if err := open(boot.Firmware, b.firmware, os.O_RDONLY); err != nil {
		return err
	}
	if b.netROM == "" {
		return nil
	}
	boot.NetROM = "net-rom"
	return open(boot.NetROM, b.netROM, os.O_RDONLY)
}

// setOrder completes the boot order once the devices are known.
func (b *bootOptions) setOrder(m *config.Machine) {
	if b.firmware == "" {
		return
	}
	if b.order != "" {
		m.Boot.Order = strings.Split(b.order, ",")
		return
	}
	for _, d := range m.Disks {
		m.Boot.Order = append(m.Boot.Order, d.ID)
	}
}
