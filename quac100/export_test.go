package quac100

import (
	"context"

	"quantavirt/quac100/regs"
)

// Raw sends an opcode that the driver has no method for.
func (c *Card) Raw(ctx context.Context, op regs.Opcode) error {
	return c.run(ctx, &request{cmd: regs.Command{Opcode: op}})
}
