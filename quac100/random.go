package quac100

import (
	"context"

	"quantavirt/quac100/regs"
)

// Random fills p with standard quality: the card's DRBG, reseeded from the
// quantum source. PQCQRNG when the pool is empty, QUACQRNGHealth when the
// source fails its tests.
func (c *Card) Random(ctx context.Context, p []byte) error {
	return c.ReadRandom(ctx, regs.QualityStandard, p)
}

// ReadRandom fills p with randomness of a quality; see regs.Quality for what
// each costs the pool. What does not fit into one command (1 MiB; for the
// qualities that draw on the pool, what the pool holds) is asked for in
// several. On error the contents of p are not to be used.
func (c *Card) ReadRandom(ctx context.Context, quality regs.Quality, p []byte) error {
	most := regs.QRNGReadMax
	switch quality {
	case regs.QualityHigh:
		most = regs.QRNGPoolBits / 8
	case regs.QualityMaximum:
		most = regs.QRNGPoolBits / 16
	}
	for len(p) > 0 {
		n := min(len(p), most)
		q := request{cmd: regs.Command{Opcode: regs.OpQRNGRead, Aux: uint16(quality)}, dst0: p[:n]}
		if err := c.run(ctx, &q); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Reseed mixes fresh pool bits and up to 256 bytes of the caller's into the
// card's generator.
func (c *Card) Reseed(ctx context.Context, additional []byte) error {
	q := request{cmd: regs.Command{Opcode: regs.OpQRNGReseed}}
	q.src0[0] = additional
	return c.run(ctx, &q)
}

// TestQRNG runs the statistical tests on fresh samples and returns those that
// failed, bits regs.Stat*, with QUACQRNGHealth.
func (c *Card) TestQRNG(ctx context.Context) (failed uint32, err error) {
	q := request{cmd: regs.Command{Opcode: regs.OpQRNGHealth}}
	err = c.run(ctx, &q)
	return uint32(q.rsp.Detail), err
}

// RawSamples reads 1 to 64 KiB of unconditioned samples of a source, 0 to 7,
// for tests of the source. Refused in FIPS mode.
func (c *Card) RawSamples(ctx context.Context, source int, p []byte) error {
	q := request{cmd: regs.Command{Opcode: regs.OpQRNGRaw, Aux: uint16(source)}, dst0: p}
	return c.run(ctx, &q)
}
