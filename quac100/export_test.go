package quac100

import (
	"context"

	"quantavirt/quac100/regs"
)

// Raw sends an opcode that the driver has no method for.
func (c *Card) Raw(ctx context.Context, op regs.Opcode) error {
	return c.run(ctx, &request{cmd: regs.Command{Opcode: op}})
}

// Send does a command as it is, with what buffers it has beside its own fields.
func (c *Card) Send(ctx context.Context, cmd regs.Command, src, dst []byte) error {
	q := request{cmd: cmd, dst0: dst}
	q.src0[0] = src
	return c.run(ctx, &q)
}

// OpenVFIOBus is the bus of OpenVFIO.
func OpenVFIOBus(address string) (Bus, error) { return newVFIOBus(address) }

// Held is what is not idle: bytes of the DMA pool, and places in the ring.
func (c *Card) Held() (bytes, places int) {
	c.pool.mu.Lock()
	bytes = c.pool.size
	c.pool.mu.Unlock()
	for class := range blockClasses {
		bytes -= len(c.pool.idle[class]) * blockSize[class]
	}
	return bytes, len(c.ring.slots) - len(c.ring.free)
}
