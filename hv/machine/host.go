package machine

import (
	"errors"
	"sort"
	"sync"
	"unsafe"

	"quantavirt/hv/kvm"
	"quantavirt/hv/pci"
	"quantavirt/internal/qverr"
)

// Interrupt lines of the devices on ports.
const (
	irqCOM1 = 4
	irqSCI  = 9

	ioapicPins = 24
)

// host implements pci.Host over the VM of the kernel, and remembers everything,
// so that it can do it again on another VM.
type host struct {
	mu      sync.Mutex
	vm      *kvm.VM
	nextGSI uint32
	routes  map[uint32]pci.Message
	irqs    map[irq]bool
	bells   map[bell]bool
	slots   map[uint64]memorySlot // by guest address
}

type irq struct {
	gsi uint32
	fd  int
}

type bell struct {
	addr     uint64
	size, fd int
}

// memorySlot is memory of a device in KVM.
type memorySlot struct {
	slot uint32
	mem  []byte
}

// deviceSlots is where KVM's memory slots of devices begin; those before are RAM, the
// generation id and firmware (romSlot).
const deviceSlots = romSlot + 0x100

var _ pci.Host = (*host)(nil)

func newHost(vm *kvm.VM) *host {
	return &host{vm: vm, nextGSI: ioapicPins, routes: map[uint32]pci.Message{}, irqs: map[irq]bool{}, bells: map[bell]bool{}, slots: map[uint64]memorySlot{}}
}

func hostAddr(data []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&data[0]))) }

// chipRoutes connect GSIs with the pins of PICs and IOAPIC as on a PC: the timer
// is on IOAPIC pin 2, all else on the pin of its number.
func chipRoutes() []kvm.Route {
	var list []kvm.Route
	for gsi := uint32(0); gsi < 16; gsi++ {
		if gsi != 2 { // the cascade
			list = append(list, kvm.Route{GSI: gsi, Chip: kvm.ChipPICMaster + gsi/8, Pin: gsi % 8})
		}
	}
	for gsi := uint32(0); gsi < ioapicPins; gsi++ {
		switch gsi {
		case 0:
			list = append(list, kvm.Route{GSI: 0, Chip: kvm.ChipIOAPIC, Pin: 2})
		case 2:
		default:
			list = append(list, kvm.Route{GSI: gsi, Chip: kvm.ChipIOAPIC, Pin: gsi})
		}
	}
	return list
}

func (h *host) routeChips() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.setRoutes()
}

func (h *host) setRoutes() error {
	list := chipRoutes()
	first := len(list)
	for gsi, msg := range h.routes {
		list = append(list, kvm.Route{GSI: gsi, MSI: true, Addr: wideDestination(msg.Addr), Data: msg.Data})
	}
	sort.Slice(list[first:], func(i, j int) bool { return list[first+i].GSI < list[first+j].GSI })
	return h.vm.SetRoutes(list)
}

// move does again on vm all that was done on the VM before.
func (h *host) move(vm *kvm.VM) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.vm = vm
	errs := []error{h.setRoutes()}
	for i := range h.irqs {
		errs = append(errs, vm.AttachIRQ(i.fd, i.gsi))
	}
	for b := range h.bells {
		errs = append(errs, vm.AttachIOEvent(b.addr, b.size, b.fd))
	}
	for addr, m := range h.slots {
		errs = append(errs, vm.SetMemory(kvm.MemoryRegion{Slot: m.slot, GPA: addr, Size: uint64(len(m.mem)), HostAddr: hostAddr(m.mem)}))
	}
	return errors.Join(errs...)
}

func (h *host) setLine(gsi uint32, high bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vm != nil {
		// It fails for a pin that does not exist, and these do.
		_ = h.vm.SetIRQLine(gsi, high)
	}
}

// drop forgets the VM, which is about to be closed: a console may still type.
func (h *host) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.vm = nil
}

func (h *host) AllocGSI() (uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nextGSI >= kvm.MaxRoutes-16 { // the PICs' routes count too
		return 0, qverr.New(qverr.Limit, "no interrupt is left: KVM has %d routes", kvm.MaxRoutes)
	}
	h.nextGSI++
	return h.nextGSI - 1, nil
}

func (h *host) RouteMSI(gsi uint32, msg pci.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	old, had := h.routes[gsi]
	h.routes[gsi] = msg
	err := h.setRoutes()
	if err != nil {
		delete(h.routes, gsi)
		if had {
			h.routes[gsi] = old
		}
	}
	return err
}

func (h *host) AttachIRQ(gsi uint32, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.vm.AttachIRQ(fd, gsi); err != nil {
		return err
	}
	h.irqs[irq{gsi, fd}] = true
	return nil
}

func (h *host) DetachIRQ(gsi uint32, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.irqs, irq{gsi, fd})
	return h.vm.DetachIRQ(fd, gsi)
}

func (h *host) AttachDoorbell(addr uint64, size, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.vm.AttachIOEvent(addr, size, fd); err != nil {
		return err
	}
	h.bells[bell{addr, size, fd}] = true
	return nil
}

func (h *host) DetachDoorbell(addr uint64, size, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bells, bell{addr, size, fd})
	return h.vm.DetachIOEvent(addr, size, fd)
}

// wideDestination moves bits 8 to 14 of an APIC id from where a guest puts them when
// CPUID offers it (bits 5 to 11 of the address, in a message that is not in
// remappable format) to where KVM wants them (bits 40 to 46). A guest that was not
// offered it leaves them zero.
func wideDestination(addr uint64) uint64 {
	const remappable, ext = 1 << 4, 0x7f << 5
	if addr>>32 != 0 || addr&remappable != 0 {
		return addr
	}
	return addr&^ext | addr&ext<<35
}

func (h *host) MapMemory(addr uint64, mem []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	used := map[uint32]bool{}
	for _, m := range h.slots {
		used[m.slot] = true
	}
	slot := uint32(deviceSlots)
	for used[slot] {
		slot++
	}
	if err := h.vm.SetMemory(kvm.MemoryRegion{Slot: slot, GPA: addr, Size: uint64(len(mem)), HostAddr: hostAddr(mem)}); err != nil {
		return err
	}
	h.slots[addr] = memorySlot{slot, mem}
	return nil
}

func (h *host) UnmapMemory(addr uint64, mem []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.slots[addr]
	if !ok || len(m.mem) != len(mem) {
		return qverr.New(qverr.NoEnt, "no device has %#x bytes of memory at %#x", len(mem), addr)
	}
	delete(h.slots, addr)
	return h.vm.SetMemory(kvm.MemoryRegion{Slot: m.slot, GPA: addr})
}
