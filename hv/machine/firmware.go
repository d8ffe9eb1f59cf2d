package machine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"quantavirt/hv/acpi"
	"quantavirt/hv/config"
	"quantavirt/hv/fwcfg"
	"quantavirt/hv/kvm"
	"quantavirt/hv/pci"
	"quantavirt/hv/smbios"
	"quantavirt/internal/qverr"
)

// Firmware is what a machine starts instead of a kernel: SeaBIOS, in the form that
// is made for QEMU (bios-256k.bin).
type Firmware struct {
	// Image has 64 KiB to 256 KiB, a multiple of 64 KiB. It lies below 4 GiB, and
	// copied below 1 MiB, as the chipset of a PC would have it.
	Image *os.File
	// NetROM is the option ROM of virtio-net devices, by which the guest boots from
	// a network; nil for none.
	NetROM *os.File
	// UUID is what the guest finds as that of its machine, in SMBIOS.
	UUID uuid.UUID
}

// CheckFirmware tells whether size bytes can be a firmware.
func CheckFirmware(size int64) error {
	if size < romUnit || size > romMax || size%romUnit != 0 {
		return qverr.New(qverr.Inval, "not a BIOS: %d bytes instead of 64, 128, 192 or 256 KiB", size)
	}
	return nil
}

const (
	romUnit   = 64 << 10
	romMax    = 256 << 10
	netROMMax = 256 << 10
	romTop    = 1 << 32   // the image ends there,
	shadowTop = highStart // and its copy here
	romSlot   = 0x100     // of KVM's memory slots; RAM has the first ones

	// netROMFile is how SeaBIOS looks the ROM of a virtio-net device up.
	netROMFile = "pci1af4,1041.rom"
	fileE820   = "etc/e820"
	e820Size   = 20
)

// firmware is what a machine with firmware has beside the others.
type firmware struct {
	rom     []byte // the image, mapped for KVM and read-only
	cfg     *fwcfg.Device
	console *debugConsole
}

// addFirmware reads the image and makes the devices that firmware needs.
func (m *Machine) addFirmware() error {
	rom, err := mapROM(m.opts.Firmware.Image)
	if err != nil {
		return err
	}
	m.firmware = &firmware{rom: rom, cfg: fwcfg.New(m.mem), console: newDebugConsole(m.log)}
	cfg := m.firmware.cfg
	cfg.SetUint16(fwcfg.KeyCPUs, uint16(m.opts.CPUs))
	cfg.SetUint16(fwcfg.KeyMaxCPUs, uint16(m.opts.CPUs))
	script, err := acpi.ForFirmware(m.acpiConfig())
	if err != nil {
		return err
	}
	anchor, tables := smbios.Tables(smbios.Config{Vendor: "QuantaVirt", Product: "Virtual Machine", Version: config.MachineType,
		UUID: m.opts.Firmware.UUID, Memory: m.opts.Memory})
	le := binary.LittleEndian
	files := map[string][]byte{
		fileE820:        e820(m.ramMap()),
		acpi.FileLoader: script.Loader, acpi.FileRSDP: script.RSDP, acpi.FileTables: script.Tables,
		smbios.FileAnchor: anchor, smbios.FileTables: tables,
		// There is no screen: what firmware and boot loader print by INT 10h goes to COM1.
		"etc/sercon-port": le.AppendUint16(nil, portCOM1),
		// Without it SeaBIOS resets for ever where nothing can be booted.
		"etc/boot-fail-wait": le.AppendUint32(nil, 0xffff_ffff),
	}
	if f := m.opts.Firmware.NetROM; f != nil {
		if files[netROMFile], err = readROM(f); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := cfg.AddFile(name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

// SetBootOrder tells the firmware what to boot from, the first that can be booted
// of these. It is called before Start, and does nothing where there is no firmware.
func (m *Machine) SetBootOrder(order []*pci.Device) error {
	if m.firmware == nil {
		return nil
	}
	var text strings.Builder
	for _, d := range order {
		// The firmware looks at the slot alone.
		fmt.Fprintf(&text, "/pci@i0cf8/device@%x\n", d.Slot())
	}
	text.WriteString("HALT") // nothing else is tried
	return m.firmware.cfg.AddFile("bootorder", append([]byte(text.String()), 0))
}

func mapROM(f *os.File) ([]byte, error) {
	size, err := fileSize(f)
	if err != nil {
		return nil, err
	}
	if err := CheckFirmware(int64(size)); err != nil {
		return nil, err
	}
	rom, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, qverr.New(qverr.NoMem, "%d bytes for the firmware: %w", size, err)
	}
	if err = readFile(f, rom, 0); err == nil {
		err = unix.Mprotect(rom, unix.PROT_READ)
	}
	if err != nil {
		_ = unix.Munmap(rom)
		return nil, qverr.New(qverr.CodeOf(err), "firmware: %w", err)
	}
	return rom, nil
}

func readROM(f *os.File) ([]byte, error) {
	size, err := fileSize(f)
	if err != nil {
		return nil, err
	}
	if size == 0 || size > netROMMax {
		return nil, qverr.New(qverr.Inval, "an option ROM of %d bytes: 1 to %d are possible", size, netROMMax)
	}
	data := make([]byte, size)
	return data, readFile(f, data, 0)
}

// ramMap is the memory map for firmware: it reserves what it uses itself.
func (m *Machine) ramMap() []mapEntry {
	list := []mapEntry{{ecamBase, ecamSize, typeReserved}}
	for _, r := range m.mem.Regions() {
		list = append(list, mapEntry{r.GPA, r.Size, typeRAM})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].addr < list[j].addr })
	return list
}

func e820(list []mapEntry) []byte {
	var b []byte
	for _, e := range list {
		b = binary.LittleEndian.AppendUint64(b, e.addr)
		b = binary.LittleEndian.AppendUint64(b, e.size)
		b = binary.LittleEndian.AppendUint32(b, e.kind)
	}
	return b
}

// mapFirmware puts the image where the first instruction is fetched. The guest
// cannot write there: its writes exit, and go nowhere.
func (m *Machine) mapFirmware(vm *kvm.VM) error {
	rom := m.firmware.rom
	return vm.SetMemory(kvm.MemoryRegion{Slot: romSlot, Flags: kvm.MemReadOnly,
		GPA: romTop - uint64(len(rom)), Size: uint64(len(rom)), HostAddr: hostAddr(rom)})
}

// loadFirmware copies the image below 1 MiB. The vCPU then starts where it does
// after power-on.
func (m *Machine) loadFirmware() (entryPoint, error) {
	rom := m.firmware.rom
	return entryPoint{reset: true}, m.mem.WriteAt(rom, shadowTop-uint64(len(rom)))
}

func (m *Machine) firmwarePorts() []portRange {
	if m.firmware == nil {
		return nil
	}
	return []portRange{
		{portDebug, 1, m.firmware.console},
		{fwcfg.Port, fwcfg.Ports, fwcfgPort{m.firmware.cfg}},
	}
}

// fwcfgPort puts the fw_cfg device on ports.
type fwcfgPort struct{ dev *fwcfg.Device }

func (p fwcfgPort) readPort(off uint16, data []byte) { p.dev.ReadPort(off, data) }

func (p fwcfgPort) writePort(off uint16, data []byte) eventKind {
	p.dev.WritePort(off, data)
	return 0
}

// reset is that of the machine, which then copies the image again.
func (f *firmware) reset() {
	f.cfg.Reset()
	f.console.reset()
}

func (f *firmware) close() { _ = unix.Munmap(f.rom) }
