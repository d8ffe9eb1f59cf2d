package quac100

import (
	"context"
	"errors"

	"quantavirt/internal/qverr"
)

// A slot of the pool holds the inputs and outputs of one command: a page for
// each of the four buffers that a command may have.
const (
	pageSize  = 4096
	slotSize  = 4 * pageSize
	poolSlots = 32
)

// pool hands out DMA memory, so that no operation allocates any.
type pool struct {
	bus  Bus
	mem  Buffer
	free chan int
}

func newPool(bus Bus) (*pool, error) {
	mem, err := bus.AllocDMA(poolSlots * slotSize)
	if err != nil {
		return nil, err
	}
	p := &pool{bus: bus, mem: mem, free: make(chan int, poolSlots)}
	for i := range poolSlots {
		p.free <- i
	}
	return p, nil
}

// get waits for a free slot.
func (p *pool) get(ctx context.Context) (slot int, err error) {
	select {
	case slot = <-p.free:
		return slot, nil
	case <-ctx.Done():
		return 0, qverr.New(qverr.Timeout, "waiting for a DMA buffer: %w", ctx.Err())
	}
}

// put wipes the slot and gives it back.
func (p *pool) put(slot int) {
	clear(p.mem.Bytes[slot*slotSize : (slot+1)*slotSize])
	p.free <- slot
}

// page is one of the four pages of a slot.
func (p *pool) page(slot, n int) ([]byte, uint64) {
	off := slot*slotSize + n*pageSize
	return p.mem.Bytes[off : off+pageSize], p.mem.IOVA + uint64(off)
}

func (p *pool) close() {
	_ = p.bus.FreeDMA(p.mem)
}

// transfer is the data of a command: inputs are copied into a slot, outputs
// out of it.
type transfer struct{ src0, src1, dst0, dst1 []byte }

var errTooLong = errors.New("longer than a DMA page")

// place copies the inputs and returns the addresses.
func (t *transfer) place(p *pool, slot int) (addr [4]uint64, err error) {
	for i, data := range [][]byte{t.src0, t.src1, t.dst0, t.dst1} {
		if len(data) > pageSize {
			return addr, qverr.New(qverr.Inval, "buffer of %d bytes: %w", len(data), errTooLong)
		}
		if len(data) == 0 {
			continue
		}
		page, iova := p.page(slot, i)
		addr[i] = iova
		if i < 2 {
			copy(page, data)
		}
	}
	return addr, nil
}

// collect copies the outputs.
func (t *transfer) collect(p *pool, slot int) {
	for i, data := range [][]byte{t.dst0, t.dst1} {
		page, _ := p.page(slot, 2+i)
		copy(data, page)
	}
}
