package driver

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/hv/pci"
)

// host is a machine without KVM: interrupts and doorbells stay eventfds.
type host struct {
	mu    sync.Mutex
	gsi   uint32
	irqs  map[uint32]int // gsi to eventfd
	bells map[uint64]int // address to eventfd
}

func newHost() *host { return &host{irqs: map[uint32]int{}, bells: map[uint64]int{}} }

func (h *host) AllocGSI() (uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gsi++
	return h.gsi, nil
}

func (h *host) RouteMSI(uint32, pci.Message) error { return nil }

func (h *host) AttachIRQ(gsi uint32, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.irqs[gsi] = fd
	return nil
}

func (h *host) DetachIRQ(gsi uint32, _ int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.irqs, gsi)
	return nil
}

func (h *host) AttachDoorbell(addr uint64, _ int, fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bells[addr] = fd
	return nil
}

func (h *host) DetachDoorbell(addr uint64, _ int, _ int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bells, addr)
	return nil
}

func (h *host) MapMemory(uint64, []byte) error   { return nil }
func (h *host) UnmapMemory(uint64, []byte) error { return nil }

// ring signals the doorbell at addr, as KVM does, and tells whether there is one.
func (h *host) ring(addr uint64) bool {
	h.mu.Lock()
	fd, ok := h.bells[addr]
	h.mu.Unlock()
	if ok {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(fd, one[:])
	}
	return ok
}
