package machine

import (
	"crypto/rand"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/hv/kvm"
	"quantavirt/internal/qverr"
)

// The generation id tells a guest that it was cloned or taken back to an earlier
// state, so that it makes new random seeds and keys ("Virtual Machine Generation
// ID", Microsoft; Linux drivers/virt/vmgenid.c). It is 16 bytes in a page of its
// own, which is not RAM in any memory map.
const (
	generationAddr = 0xfeff_8000
	generationSlot = 64 // of KVM's memory; RAM and firmware have the lower ones
	gpeGeneration  = 0  // general purpose event that tells of a new one
	pageSize       = 4096
)

// generation is the page.
type generation struct {
	mu   sync.Mutex
	page []byte
}

// newGeneration makes the page with id, or with a random one when id is zero.
func newGeneration(id [16]byte) (*generation, error) {
	page, err := unix.Mmap(-1, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, qverr.New(qverr.NoMem, "page of the generation id: %w", err)
	}
	g := &generation{page: page}
	if id == ([16]byte{}) {
		_, _ = rand.Read(id[:]) // it does not fail
	}
	copy(g.page, id[:])
	return g, nil
}

func (g *generation) region() kvm.MemoryRegion {
	return kvm.MemoryRegion{Slot: generationSlot, GPA: generationAddr, Size: pageSize, HostAddr: hostAddr(g.page)}
}

// set changes the id, unless the page is gone.
func (g *generation) set(id [16]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.page != nil {
		copy(g.page, id[:])
	}
}

func (g *generation) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.page != nil {
		_ = unix.Munmap(g.page)
		g.page = nil
	}
}

// SetGeneration gives the guest a new generation id, 16 bytes that nobody had before,
// and tells it so. The id keeps over a reset.
func (m *Machine) SetGeneration(id [16]byte) {
	m.gen.set(id)
	m.pm.raise(gpeGeneration)
}
