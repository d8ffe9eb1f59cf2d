package workload

import (
	"bytes"
	"context"
	"slices"

	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// remove deletes keys and keeps the first error. A card that is broken meanwhile may
// keep some of them.
func (c *caller) remove(ctx context.Context, err error, keys ...quac100.Handle) error {
	for _, h := range keys {
		if h == 0 {
			continue
		}
		if e := c.card.DeleteKey(ctx, h); err == nil {
			err = e
		}
	}
	return err
}

// storedKEM agrees on a key that neither end sees.
func (c *caller) storedKEM(ctx context.Context, s regs.Sizes) error {
	ek, ct := make([]byte, s.Public), make([]byte, s.Output)
	pair, err := c.card.KEMKeygenStored(ctx, s.Alg, nil, nil, ek)
	if err != nil {
		return err
	}
	var k, k2 quac100.Handle
	if k, err = c.card.EncapsulateStored(ctx, s.Alg, quac100.Inline(ek), nil, ct); err == nil {
		k2, err = c.card.DecapsulateStored(ctx, s.Alg, quac100.Stored(pair), ct)
	}
	sealed, opened := make([]byte, 100+regs.GCMTagSize), make([]byte, 100)
	if err == nil {
		err = c.card.EncryptGCM(ctx, quac100.Stored(k), c.text[:12], nil, c.text[:100], sealed)
	}
	if err == nil {
		err = c.card.DecryptGCM(ctx, quac100.Stored(k2), c.text[:12], nil, sealed, opened)
	}
	if err == nil {
		err = right(bytes.Equal(opened, c.text[:100]), "shared keys on the card")
	}
	return c.remove(ctx, err, pair, k, k2)
}

func (c *caller) storedSign(ctx context.Context, s regs.Sizes) error {
	pk, same, sig := make([]byte, s.Public), make([]byte, s.Public), make([]byte, s.Output)
	h, err := c.card.SignKeygenStored(ctx, s.Alg, nil, nil, pk)
	if err != nil {
		return err
	}
	if err = c.card.Sign(ctx, s.Alg, quac100.Stored(h), quac100.SignOptions{Deterministic: true}, c.text[:50], sig); err == nil {
		err = c.card.Verify(ctx, s.Alg, quac100.Stored(h), quac100.SignOptions{}, c.text[:50], sig)
	}
	if err == nil {
		_, err = c.card.ExportPublic(ctx, h, same)
	}
	if err == nil {
		err = right(bytes.Equal(pk, same), "exported public key")
	}
	return c.remove(ctx, err, h)
}

// storedAES encrypts with a key and a nonce of the card's.
func (c *caller) storedAES(ctx context.Context) error {
	h, err := c.card.GenerateAESKey(ctx, nil)
	if err != nil {
		return err
	}
	nonce, sealed, opened := make([]byte, regs.GCMNonceSize), make([]byte, 100+regs.GCMTagSize), make([]byte, 100)
	if err = c.card.EncryptGCMFresh(ctx, quac100.Stored(h), nil, c.text[:100], nonce, sealed); err == nil {
		err = c.card.DecryptGCM(ctx, quac100.Stored(h), nonce, nil, sealed, opened)
	}
	if err == nil {
		err = right(bytes.Equal(opened, c.text[:100]), "plaintext")
	}
	if err == nil {
		var i regs.KeyInfo
		i, err = c.card.KeyInfo(ctx, h)
		if err == nil {
			err = right(quac100.Handle(i.Handle) == h && i.Alg == regs.AES256GCM, "key's record")
		}
	}
	return c.remove(ctx, err, h)
}

// wrapped sends a key out of the card and back under another one.
func (c *caller) wrapped(ctx context.Context) error {
	wrap, err := c.card.GenerateAESKey(ctx, &regs.Attributes{Alg: regs.AES256GCM, Type: regs.KeySymmetric,
		Usage: regs.UsageWrap | regs.UsageUnwrap, Flags: regs.AttrDestroyable})
	if err != nil {
		return err
	}
	var key, again quac100.Handle
	var before, after regs.KeyInfo
	blob := make([]byte, quac100.WrappedSize(0, regs.AESKeySize))
	key, err = c.card.ImportKey(ctx, &regs.Attributes{Alg: regs.AES256GCM, Type: regs.KeySymmetric, Usage: regs.UsageEncrypt | regs.UsageExport,
		Flags: regs.AttrDestroyable | regs.AttrExtractable}, c.text[:regs.AESKeySize])
	if err == nil {
		_, err = c.card.ExportWrapped(ctx, key, wrap, blob)
	}
	if err == nil {
		again, err = c.card.ImportWrapped(ctx, wrap, blob, false)
	}
	if err == nil {
		before, err = c.card.KeyInfo(ctx, key)
	}
	if err == nil {
		after, err = c.card.KeyInfo(ctx, again)
	}
	if err == nil {
		err = right(before.KeyDigest == after.KeyDigest, "key after wrapping")
	}
	if err == nil {
		var all []quac100.Handle
		if all, err = c.card.ListKeys(ctx); err == nil {
			err = right(slices.Contains(all, key) && slices.Contains(all, again), "list of keys")
		}
	}
	return c.remove(ctx, err, wrap, key, again)
}
