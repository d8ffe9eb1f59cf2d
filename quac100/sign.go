package quac100

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// SignOptions choose the form of a signature. The zero value is the pure form
// with an empty context, hedged.
type SignOptions struct {
	Context       []byte      // at most 255 bytes
	Hash          regs.HashID // 0: pure; else HashML-DSA or HashSLH-DSA over the message hashed on the card
	Deterministic bool        // no fresh randomness in the signature; ignored by Verify
}

func (c *Card) signature(alg regs.Alg) (regs.Sizes, error) {
	return c.sizes(alg, regs.FamilySignature, "signature scheme")
}

// SignKeygen makes a key pair of ML-DSA (FIPS 204) or SLH-DSA (FIPS 205) into
// buffers of the exact sizes. seed is ξ (32 bytes) or SK.seed‖SK.prf‖PK.seed
// (48, 72 or 96), or nil for the card's randomness.
func (c *Card) SignKeygen(ctx context.Context, alg regs.Alg, seed, public, secret []byte) error {
	q := request{dst1: secret}
	if err := c.signKeygen(&q, alg, seed, public); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) signKeygen(q *request, alg regs.Alg, seed, public []byte) error {
	s, err := c.signature(alg)
	if err == nil {
		err = length("public key", public, s.Public)
	}
	if err == nil && q.dst1 != nil {
		err = length("secret key", q.dst1, s.Secret)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpSigKeygen, alg, public
	q.seed(seed)
	return err
}

// SignKeygenStored makes a key pair whose secret key stays on the card. attrs
// may be nil: sign and verify, volatile, not extractable.
func (c *Card) SignKeygenStored(ctx context.Context, alg regs.Alg, seed []byte, attrs *regs.Attributes, public []byte) (Handle, error) {
	var q request
	if err := c.signKeygen(&q, alg, seed, public); err != nil {
		return 0, err
	}
	store(&q, attrs)
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// message fills in what signing and verifying have in common.
func (o *SignOptions) message(q *request, message []byte) error {
	if len(o.Context) > regs.MaxContextSize {
		return qverr.New(qverr.Inval, "context string of %d bytes, at most %d", len(o.Context), regs.MaxContextSize)
	}
	q.cmd.Aux = uint16(o.Hash)<<8 | uint16(len(o.Context))
	if o.Hash != 0 {
		q.cmd.Flags |= regs.FlagPrehash
	}
	q.src0[0], q.src0[1] = o.Context, message
	return nil
}

// Sign signs a message of up to 16 MiB, context included; signature has the
// algorithm's exact size. PQCSign for a key that is none; Inval for a hash
// that is too weak for the parameter set. The small SLH-DSA sets take seconds.
func (c *Card) Sign(ctx context.Context, alg regs.Alg, key Key, opts SignOptions, message, signature []byte) error {
	var q request
	if err := c.sign(&q, alg, key, opts, message, signature); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) sign(q *request, alg regs.Alg, key Key, opts SignOptions, message, signature []byte) error {
	s, err := c.signature(alg)
	if err == nil {
		err = length("signature", signature, s.Output)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpSign, alg, signature
	if err == nil {
		err = opts.message(q, message)
	}
	if opts.Deterministic {
		q.cmd.Flags |= regs.FlagDeterministic
	}
	q.src1[0] = key.place(q)
	return err
}

// Verify is nil for a good signature and PQCVerify for a bad one, which is a
// result and not a fault. It never trusts the status alone: the card must also
// set its VERIFIED flag.
func (c *Card) Verify(ctx context.Context, alg regs.Alg, key Key, opts SignOptions, message, signature []byte) error {
	var q request
	if err := c.verify(&q, alg, key, opts, message, signature); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) verify(q *request, alg regs.Alg, key Key, opts SignOptions, message, signature []byte) error {
	s, err := c.signature(alg)
	if err == nil && len(signature) != s.Output {
		err = qverr.New(qverr.PQCVerify, "signature of %d bytes, must be %d", len(signature), s.Output)
	}
	q.cmd.Opcode, q.cmd.Param = regs.OpVerify, alg
	if err == nil {
		err = opts.message(q, message)
	}
	q.src1[0], q.src1[1] = key.place(q), signature
	return err
}
