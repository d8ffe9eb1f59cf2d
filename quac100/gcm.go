package quac100

import (
	"context"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// gcm checks that the card has AES-256-GCM and that nonce and additional data
// are of the right size.
func (c *Card) gcm(nonce, aad []byte) error {
	if _, err := c.sizes(regs.AES256GCM, regs.FamilySymmetric, "cipher"); err != nil {
		return err
	}
	if len(aad) > regs.GCMMaxAAD {
		return qverr.New(qverr.Inval, "additional data of %d bytes, at most %d", len(aad), regs.GCMMaxAAD)
	}
	return length("nonce", nonce, regs.GCMNonceSize)
}

// EncryptGCM encrypts with AES-256-GCM under a nonce of 12 bytes that must
// never be used twice with the key. dst gets ciphertext‖tag and must have
// len(plaintext)+16 bytes; plaintext may have up to 16 MiB − 16.
func (c *Card) EncryptGCM(ctx context.Context, key Key, nonce, aad, plaintext, dst []byte) error {
	var q request
	if err := c.encryptGCM(&q, key, nonce, aad, plaintext, dst); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) encryptGCM(q *request, key Key, nonce, aad, plaintext, dst []byte) error {
	err := c.gcm(nonce, aad)
	if err == nil {
		err = length("output", dst, len(plaintext)+regs.GCMTagSize)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpAESGCMEncrypt, regs.AES256GCM, dst
	q.src0[0] = plaintext
	q.src1 = [3][]byte{key.place(q), nonce, aad}
	return err
}

// EncryptGCMFresh is EncryptGCM with a nonce that the card makes and stores in
// nonce, 12 bytes. A stored key may be used 2³² times this way, then Inval.
func (c *Card) EncryptGCMFresh(ctx context.Context, key Key, aad, plaintext, nonce, dst []byte) error {
	q := request{dst1: nonce}
	if err := c.encryptGCM(&q, key, nonce, aad, plaintext, dst); err != nil {
		return err
	}
	q.cmd.Aux = regs.GCMDeviceNonce
	q.src1[1] = nil
	return c.run(ctx, &q)
}

// DecryptGCM decrypts ciphertext‖tag into dst, which must be 16 bytes shorter.
// PQCDecrypt for a wrong tag; dst is then untouched.
func (c *Card) DecryptGCM(ctx context.Context, key Key, nonce, aad, ciphertext, dst []byte) error {
	var q request
	if err := c.decryptGCM(&q, key, nonce, aad, ciphertext, dst); err != nil {
		return err
	}
	return c.run(ctx, &q)
}

func (c *Card) decryptGCM(q *request, key Key, nonce, aad, ciphertext, dst []byte) error {
	err := c.gcm(nonce, aad)
	if err == nil && len(ciphertext) < regs.GCMTagSize {
		err = qverr.New(qverr.PQCDecrypt, "ciphertext of %d bytes has no tag", len(ciphertext))
	}
	if err == nil {
		err = length("output", dst, len(ciphertext)-regs.GCMTagSize)
	}
	q.cmd.Opcode, q.cmd.Param, q.dst0 = regs.OpAESGCMDecrypt, regs.AES256GCM, dst
	q.src0[0] = ciphertext
	q.src1 = [3][]byte{key.place(q), nonce, aad}
	return err
}
