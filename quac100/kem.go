package quac100

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// sizes checks that the card has alg, and that it is of a family.
func (c *Card) sizes(alg regs.Alg, family regs.Family, what string) (regs.Sizes, error) {
	s, ok := regs.SizesOf(alg)
	if !ok || s.Family != family {
		return s, qverr.New(qverr.PQCAlgorithm, "algorithm %#04x is no %s", uint16(alg), what)
	}
	if c.Caps()&s.Cap == 0 {
		return s, qverr.New(qverr.Unsupported, "card %s has no %s", c.bus.Address(), s.Name)
	}
	return s, nil
}

func (c *Card) kem(alg regs.Alg) (regs.Sizes, error) {
	return c.sizes(alg, regs.FamilyKEM, "key encapsulation mechanism")
}

// length refuses a buffer that is not of the one right size.
func length(what string, b []byte, want int) error {
	if len(b) == want {
		return nil
	}
	return qverr.New(qverr.Inval, "%s of %d bytes, must be %d", what, len(b), want)
}

// KEMKeygen makes an ML-KEM key pair: public of the size of the encapsulation
// key, secret of that of the expanded decapsulation key (FIPS 203). seed is
// d‖z, 64 bytes, or nil for the card's randomness; a card in FIPS mode refuses
// seeds. Errors: PQCAlgorithm, Inval, and those of every command (do).
func (c *Card) KEMKeygen(ctx context.Context, alg regs.Alg, seed, public, secret []byte) error {
	q := request{dst1: secret}
	if err := c.kemKeygen(&q, alg, seed, public); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) kemKeygen(q *request, alg regs.Alg, seed, public []byte) error {
	s, err := c.kem(alg)
	if err == nil {
		err = length("public key", public, s.Public)
	}
	if err == nil && q.dst1 != nil {
		err = length("secret key", q.dst1, s.Secret)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpKEMKeygen, alg, public
	q.seed(seed)
	return err
}

// KEMKeygenStored makes a key pair whose secret key stays on the card. attrs
// may be nil: encapsulate and decapsulate, volatile, not extractable. The
// public key is stored too.
func (c *Card) KEMKeygenStored(ctx context.Context, alg regs.Alg, seed []byte, attrs *regs.Attributes, public []byte) (Handle, error) {
	var q request
	if err := c.kemKeygen(&q, alg, seed, public); err != nil {
		return 0, err
	}
	store(&q, attrs)
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// Encapsulate makes a shared key of 32 bytes and its ciphertext for a public
// key. seed is m, 32 bytes, or nil for the card's randomness. PQCEncaps for a
// key that fails the modulus check of FIPS 203.
func (c *Card) Encapsulate(ctx context.Context, alg regs.Alg, key Key, seed, ciphertext, shared []byte) error {
	var q request
	if err := c.encapsulate(&q, alg, key, seed, ciphertext, shared); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) encapsulate(q *request, alg regs.Alg, key Key, seed, ciphertext, shared []byte) error {
	s, err := c.kem(alg)
	if err == nil {
		err = length("ciphertext", ciphertext, s.Output)
	}
	if err == nil {
		err = length("shared key", shared, regs.SharedSize)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0, q.dst1 = regs.OpKEMEncaps, alg, ciphertext, shared
	q.src0[0] = key.place(q)
	if seed != nil {
		q.cmd.Flags |= regs.FlagSeed
		q.src1[0] = seed
	}
	return err
}

// EncapsulateStored keeps the shared key on the card, as an AES-256 key.
func (c *Card) EncapsulateStored(ctx context.Context, alg regs.Alg, key Key, attrs *regs.Attributes, ciphertext []byte) (Handle, error) {
	s, err := c.kem(alg)
	if err == nil {
		err = length("ciphertext", ciphertext, s.Output)
	}
	if err != nil {
		return 0, err
	}
	q := request{cmd: regs.Command{Opcode: regs.OpKEMEncaps, Param: alg}, dst0: ciphertext}
	q.src0[0] = key.place(&q)
	store(&q, attrs)
	err = c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// Decapsulate recovers the shared key of 32 bytes. A wrong ciphertext of the
// right length is no error but gives another key (implicit rejection).
// PQCDecaps for a secret key that fails the hash check of FIPS 203.
func (c *Card) Decapsulate(ctx context.Context, alg regs.Alg, key Key, ciphertext, shared []byte) error {
	var q request
	if err := c.decapsulate(&q, alg, key, ciphertext, shared); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) decapsulate(q *request, alg regs.Alg, key Key, ciphertext, shared []byte) error {
	_, err := c.kem(alg)
	if err == nil {
		err = length("shared key", shared, regs.SharedSize)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpKEMDecaps, alg, shared
	q.src0[0] = ciphertext
	q.src1[0] = key.place(q)
	return err
}

// DecapsulateStored keeps the shared key on the card, as an AES-256 key for
// encryption and decryption that is not extractable.
func (c *Card) DecapsulateStored(ctx context.Context, alg regs.Alg, key Key, ciphertext []byte) (Handle, error) {
	if _, err := c.kem(alg); err != nil {
		return 0, err
	}
	q := request{cmd: regs.Command{Opcode: regs.OpKEMDecaps, Param: alg, Flags: regs.FlagKeyStore}}
	q.src0[0] = ciphertext
	q.src1[0] = key.place(&q)
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// KEMGenerateKey is KEMKeygen with fresh randomness and buffers.
func (c *Card) KEMGenerateKey(ctx context.Context, alg regs.Alg) (public, secret []byte, err error) {
	s, err := c.kem(alg)
	if err != nil {
		return nil, nil, err
	}
	public, secret = make([]byte, s.Public), make([]byte, s.Secret)
	if err := c.KEMKeygen(ctx, alg, nil, public, secret); err != nil {
		return nil, nil, err
	}
	return public, secret, nil
}

// KEMEncapsulate is Encapsulate with fresh randomness and buffers.
func (c *Card) KEMEncapsulate(ctx context.Context, alg regs.Alg, public []byte) (ciphertext, shared []byte, err error) {
	s, err := c.kem(alg)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, shared = make([]byte, s.Output), make([]byte, regs.SharedSize)
	if err := c.Encapsulate(ctx, alg, Inline(public), nil, ciphertext, shared); err != nil {
		return nil, nil, err
	}
	return ciphertext, shared, nil
}

// KEMDecapsulate is Decapsulate with a new buffer.
func (c *Card) KEMDecapsulate(ctx context.Context, alg regs.Alg, secret, ciphertext []byte) (shared []byte, err error) {
	shared = make([]byte, regs.SharedSize)
	if err := c.Decapsulate(ctx, alg, Inline(secret), ciphertext, shared); err != nil {
		return nil, err
	}
	return shared, nil
}
