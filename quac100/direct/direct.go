// Package direct connects the driver of the card straight to the model in the
// same process: no VFIO, no QEMU, no privileges. It is for tests.
//
// Memory of the card's is found by I/O address, as an IOMMU would; an access
// outside of what was allocated is refused.
package direct

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// Bus implements quac100.Bus and model.Host.
type Bus struct {
	card *model.Card

	mu     sync.Mutex
	memory map[uint64][]byte
	next   uint64
	handle func(vector int)
	lost   bool // drop interrupts

	removed   chan struct{}
	unplugged sync.Once
}

// New connects to a card, whose configuration must have HostMSIX.
func New(card *model.Card) *Bus {
	b := &Bus{card: card, memory: make(map[uint64][]byte), next: 1 << 30, removed: make(chan struct{})}
	card.Connect(b)
	return b
}

// Address implements quac100.Bus.
func (b *Bus) Address() string { return "model" }

// ReadConfig implements quac100.Bus.
func (b *Bus) ReadConfig(off int64, p []byte) error {
	b.card.ReadConfig(int(off), p)
	return nil
}

// WriteConfig implements quac100.Bus.
func (b *Bus) WriteConfig(off int64, p []byte) error {
	b.card.WriteConfig(int(off), p)
	return nil
}

// Read32 implements quac100.Bus.
func (b *Bus) Read32(r regs.Reg) uint32 { return b.card.Read32(r) }

// Write32 implements quac100.Bus.
func (b *Bus) Write32(r regs.Reg, v uint32) { b.card.Write32(r, v) }

// AllocDMA implements quac100.Bus. A page of nothing lies after each buffer, so
// that a card that runs over an end is caught.
func (b *Bus) AllocDMA(size int) (quac100.Buffer, error) {
	size = (size + 4095) &^ 4095
	b.mu.Lock()
	defer b.mu.Unlock()
	buf := quac100.Buffer{Bytes: make([]byte, size), IOVA: b.next}
	b.memory[b.next] = buf.Bytes
	b.next += uint64(size) + 4096
	return buf, nil
}

// FreeDMA implements quac100.Bus.
func (b *Bus) FreeDMA(buf quac100.Buffer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.memory[buf.IOVA]; !ok {
		return fmt.Errorf("free of DMA memory at %#x, which is not allocated", buf.IOVA)
	}
	clear(buf.Bytes)
	delete(b.memory, buf.IOVA)
	return nil
}

// Leaked is the number of buffers that were not freed.
func (b *Bus) Leaked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.memory)
}

// Interrupts implements quac100.Bus.
func (b *Bus) Interrupts(_ int, handle func(vector int)) error {
	b.mu.Lock()
	b.handle = handle
	b.mu.Unlock()
	b.setMSIX(regs.MSIXControlEnable)
	return nil
}

func (b *Bus) setMSIX(bits uint16) {
	var word [2]byte
	binary.LittleEndian.PutUint16(word[:], bits)
	b.card.WriteConfig(regs.CfgMSIXControl, word[:])
}

// Reset implements quac100.Bus by the function-level reset.
func (b *Bus) Reset() error {
	var word [2]byte
	binary.LittleEndian.PutUint16(word[:], regs.DevControlFLR)
	b.card.WriteConfig(regs.CfgDevControl, word[:])
	b.mu.Lock()
	connected := b.handle != nil
	b.mu.Unlock()
	if connected { // as the kernel does for VFIO
		b.setMSIX(regs.MSIXControlEnable)
	}
	return nil
}

// Removed implements quac100.Bus.
func (b *Bus) Removed() <-chan struct{} { return b.removed }

// Unplug is what the host says before the card goes.
func (b *Bus) Unplug() { b.unplugged.Do(func() { close(b.removed) }) }

// Close implements quac100.Bus.
func (b *Bus) Close() error {
	b.setMSIX(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handle = nil
	return nil
}

// find returns the memory of an access.
func (b *Bus) find(iova uint64, n int) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for base, mem := range b.memory {
		if iova >= base && iova+uint64(n) <= base+uint64(len(mem)) && iova+uint64(n) >= iova {
			return mem[iova-base:][:n], nil
		}
	}
	return nil, fmt.Errorf("%d bytes at %#x: %w", n, iova, model.ErrUnmapped)
}

// ReadDMA implements model.Host.
func (b *Bus) ReadDMA(iova uint64, p []byte) error {
	mem, err := b.find(iova, len(p))
	if err == nil {
		copy(p, mem)
	}
	return err
}

// WriteDMA implements model.Host.
func (b *Bus) WriteDMA(iova uint64, p []byte) error {
	mem, err := b.find(iova, len(p))
	if err != nil {
		return err
	}
	if len(p) == 4 && iova%4 == 0 {
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&mem[0])), binary.LittleEndian.Uint32(p))
		return nil
	}
	copy(mem, p)
	return nil
}

// Interrupt implements model.Host.
func (b *Bus) Interrupt(vector int) {
	b.mu.Lock()
	handle := b.handle
	if b.lost {
		handle = nil
	}
	b.mu.Unlock()
	if handle != nil {
		go handle(vector)
	}
}

// LoseInterrupts makes interrupts vanish, or come again.
func (b *Bus) LoseInterrupts(lose bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = lose
}

// Holds reports whether some DMA memory has these bytes in it.
func (b *Bus) Holds(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, mem := range b.memory {
		if bytes.Contains(mem, p) {
			return true
		}
	}
	return false
}
