package quac100

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// NOP goes through the card and back. With fence, all commands before it have
// answered when it starts, and all after it wait for it.
func (c *Card) NOP(ctx context.Context, fence bool) error {
	q := request{cmd: regs.Command{Opcode: regs.OpNOP}}
	if fence {
		q.cmd.Flags = regs.FlagFence
	}
	return c.run(ctx, &q)
}

// Echo lets the card copy 1 byte to 1 MiB from src to dst, a test of DMA.
func (c *Card) Echo(ctx context.Context, src, dst []byte) error {
	var q request
	if err := echo(&q, src, dst); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func echo(q *request, src, dst []byte) error {
	q.cmd.Opcode, q.dst0 = regs.OpEcho, dst
	q.src0[0] = src
	return length("copy", dst, len(src))
}

// SelfTest runs tests on the card, alone, and returns those that failed, with
// QUACSelfTest: the card then takes no more work until it is reset.
func (c *Card) SelfTest(ctx context.Context, tests regs.SelfTest) (failed regs.SelfTest, err error) {
	q := request{cmd: regs.Command{Opcode: regs.OpSelfTest, KeyID: uint32(tests)}}
	err = c.run(ctx, &q)
	return regs.SelfTest(q.rsp.Detail), err
}

// Health asks the firmware for its record.
func (c *Card) Health(ctx context.Context) (regs.Health, error) {
	var record [regs.HealthSize]byte
	q := request{cmd: regs.Command{Opcode: regs.OpHealth}, dst0: record[:]}
	if err := c.run(ctx, &q); err != nil {
		return regs.Health{}, err
	}
	h, err := regs.ParseHealth(record[:])
	if err != nil {
		return h, qverr.New(qverr.QUACDriver, "health of card %s: %w", c.bus.Address(), err)
	}
	return h, nil
}

// Info asks the firmware what the card is.
func (c *Card) Info(ctx context.Context) (regs.CardInfo, error) {
	var record [regs.CardInfoSize]byte
	q := request{cmd: regs.Command{Opcode: regs.OpInfo}, dst0: record[:]}
	if err := c.run(ctx, &q); err != nil {
		return regs.CardInfo{}, err
	}
	i, err := regs.ParseCardInfo(record[:])
	if err != nil {
		return i, qverr.New(qverr.QUACDriver, "information on card %s: %w", c.bus.Address(), err)
	}
	return i, nil
}

// Caps is what the card can do; an algorithm has a bit of it in regs.SizesOf.
func (c *Card) Caps() regs.Caps { return regs.Caps(c.caps.Load()) }
