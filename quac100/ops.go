package quac100

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// do runs one command with its data and turns the response into an error.
func (c *Card) do(ctx context.Context, cmd *regs.Command, t *transfer) (regs.Response, error) {
	if err := c.Healthy(); err != nil {
		return regs.Response{}, err
	}
	if t == nil {
		rsp, err := c.ring.submit(ctx, cmd)
		return rsp, c.failure(cmd, rsp, err)
	}
	slot, err := c.pool.get(ctx)
	if err != nil {
		return regs.Response{}, err
	}
	addr, err := t.place(c.pool, slot)
	if err != nil {
		c.pool.put(slot)
		return regs.Response{}, err
	}
	cmd.Src0, cmd.Src1, cmd.Dst0, cmd.Dst1 = addr[0], addr[1], addr[2], addr[3]
	cmd.Src0Len, cmd.Src1Len = uint32(len(t.src0)), uint32(len(t.src1))
	cmd.Dst0Len, cmd.Dst1Len = uint32(len(t.dst0)), uint32(len(t.dst1))
	rsp, err := c.ring.submit(ctx, cmd)
	if err != nil {
		// The card may still write there: the slot is not used again.
		return rsp, c.failure(cmd, rsp, err)
	}
	if err = c.failure(cmd, rsp, nil); err == nil {
		t.collect(c.pool, slot)
	}
	c.pool.put(slot)
	return rsp, err
}

// failure gives the card's answer a code of the catalogue. A card that does
// not answer takes no more work.
func (c *Card) failure(cmd *regs.Command, rsp regs.Response, err error) error {
	if err != nil {
		if qverr.CodeOf(err) == qverr.QUACWatchdog {
			c.fail(err)
		}
		return err
	}
	if rsp.Status == regs.RespSuccess {
		return nil
	}
	return qverr.New(qverr.FromResponse(qverr.Response(rsp.Status)), "card %s answers %s with %s (%s)",
		c.bus.Address(), cmd.Opcode, rsp.Status, rsp.Detail)
}

// Random fills p with standard quality: the card's DRBG, reseeded from the
// quantum source. PQCQRNG when the pool is empty, QUACQRNGHealth when the
// source fails its tests.
func (c *Card) Random(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), pageSize)
		if _, err := c.do(ctx, &regs.Command{Opcode: regs.OpQRNGRead}, &transfer{dst0: p[:n]}); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// SelfTest runs tests on the card and returns those that failed, with
// QUACSelfTest.
func (c *Card) SelfTest(ctx context.Context, tests regs.SelfTest) (failed regs.SelfTest, err error) {
	rsp, err := c.do(ctx, &regs.Command{Opcode: regs.OpSelfTest, KeyID: uint32(tests)}, nil)
	return regs.SelfTest(rsp.Detail), err
}

// Health asks the firmware for its record.
func (c *Card) Health(ctx context.Context) (regs.Health, error) {
	record := make([]byte, regs.HealthSize)
	if _, err := c.do(ctx, &regs.Command{Opcode: regs.OpHealth}, &transfer{dst0: record}); err != nil {
		return regs.Health{}, err
	}
	h, err := regs.ParseHealth(record)
	if err != nil {
		return h, qverr.New(qverr.QUACDriver, "health of card %s: %w", c.bus.Address(), err)
	}
	return h, nil
}

// Info asks the firmware what the card is.
func (c *Card) Info(ctx context.Context) (regs.CardInfo, error) {
	record := make([]byte, regs.CardInfoSize)
	if _, err := c.do(ctx, &regs.Command{Opcode: regs.OpInfo}, &transfer{dst0: record}); err != nil {
		return regs.CardInfo{}, err
	}
	i, err := regs.ParseCardInfo(record)
	if err != nil {
		return i, qverr.New(qverr.QUACDriver, "information on card %s: %w", c.bus.Address(), err)
	}
	return i, nil
}

// kem returns the sizes of a KEM that the card has.
func (c *Card) kem(alg regs.Alg) (regs.Sizes, error) {
	s, ok := regs.SizesOf(alg)
	if !ok || s.Family != regs.FamilyKEM {
		return s, qverr.New(qverr.PQCAlgorithm, "%#x is no key encapsulation mechanism", uint16(alg))
	}
	if c.caps&s.Cap == 0 {
		return s, qverr.New(qverr.Unsupported, "card %s has no %s", c.bus.Address(), s.Name)
	}
	return s, nil
}

// KEMGenerateKey makes a key pair on the card; the secret key is in the
// expanded form of FIPS 203.
func (c *Card) KEMGenerateKey(ctx context.Context, alg regs.Alg) (public, secret []byte, err error) {
	s, err := c.kem(alg)
	if err != nil {
		return nil, nil, err
	}
	public, secret = make([]byte, s.Public), make([]byte, s.Secret)
	cmd := &regs.Command{Opcode: regs.OpKEMKeygen, Param: alg}
	if _, err := c.do(ctx, cmd, &transfer{dst0: public, dst1: secret}); err != nil {
		return nil, nil, err
	}
	return public, secret, nil
}

// KEMEncapsulate makes a shared key of 32 bytes for a public key.
func (c *Card) KEMEncapsulate(ctx context.Context, alg regs.Alg, public []byte) (ciphertext, shared []byte, err error) {
	s, err := c.kem(alg)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, shared = make([]byte, s.Output), make([]byte, regs.SharedSize)
	cmd := &regs.Command{Opcode: regs.OpKEMEncaps, Param: alg, Flags: regs.FlagKeyInline}
	if _, err := c.do(ctx, cmd, &transfer{src0: public, dst0: ciphertext, dst1: shared}); err != nil {
		return nil, nil, err
	}
	return ciphertext, shared, nil
}

// KEMDecapsulate recovers the shared key.
func (c *Card) KEMDecapsulate(ctx context.Context, alg regs.Alg, secret, ciphertext []byte) (shared []byte, err error) {
	if _, err := c.kem(alg); err != nil {
		return nil, err
	}
	shared = make([]byte, regs.SharedSize)
	cmd := &regs.Command{Opcode: regs.OpKEMDecaps, Param: alg, Flags: regs.FlagKeyInline}
	if _, err := c.do(ctx, cmd, &transfer{src0: ciphertext, src1: secret, dst0: shared}); err != nil {
		return nil, err
	}
	return shared, nil
}
