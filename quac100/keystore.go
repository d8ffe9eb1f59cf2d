package quac100

import (
	"context"
	"encoding/binary"
	"errors"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// ImportKey stores a key: attrs names algorithm, type and usage; material is
// as the type says (section 14.6 of the register map): pk, sk, pk‖sk, 32 bytes
// for AES-256, 1 to 64 raw bytes. Refused for secrets in FIPS mode; a pair
// whose halves do not belong together is Inval. Again, not transient: full.
func (c *Card) ImportKey(ctx context.Context, attrs *regs.Attributes, material []byte) (Handle, error) {
	return c.importKey(ctx, attrs, material, 0)
}

// ImportSeed stores the pair that a seed makes; see KEMKeygen and SignKeygen.
func (c *Card) ImportSeed(ctx context.Context, attrs *regs.Attributes, seed []byte) (Handle, error) {
	return c.importKey(ctx, attrs, seed, regs.FlagSeed)
}

func (c *Card) importKey(ctx context.Context, attrs *regs.Attributes, material []byte, flags regs.Flags) (Handle, error) {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyImport, Param: attrs.Alg, Flags: flags}}
	q.src0[0] = material
	attributes(&q, attrs)
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// ImportWrapped stores a key from a blob of ExportWrapped, made with the same
// wrapping key.
func (c *Card) ImportWrapped(ctx context.Context, unwrap Handle, blob []byte, persistent bool) (Handle, error) {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyImport, Flags: regs.FlagWrapped, KeyID: uint32(unwrap)}}
	if persistent {
		q.cmd.Flags |= regs.FlagPersist
	}
	q.src0[0] = blob
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// ExportPublic stores the public key of a pair in dst and returns its length.
func (c *Card) ExportPublic(ctx context.Context, h Handle, dst []byte) (int, error) {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyExport, KeyID: uint32(h), Aux: regs.KeyExportPublic}, dst0: dst}
	err := c.run(ctx, &q)
	return int(q.rsp.Out0Len), err
}

// WrappedSize is the size of the blob of a key whose halves have these
// lengths, in bytes.
func WrappedSize(public, secret int) int { return regs.WrappedSize + public + secret + regs.GCMTagSize }

// ExportWrapped stores an extractable key, encrypted under an AES-256 key of
// the card, in dst and returns the length.
func (c *Card) ExportWrapped(ctx context.Context, h, wrap Handle, dst []byte) (int, error) {
	q := request{cmd: regs.Command{
		Opcode: regs.OpKeyExport, Flags: regs.FlagWrapped, KeyID: uint32(h), Aux: regs.KeyExportSecret, Src1: uint64(wrap),
	}, dst0: dst}
	err := c.run(ctx, &q)
	return int(q.rsp.Out0Len), err
}

// DeleteKey destroys a key that has the attribute destroyable. Commands that
// have started with it end; a fence makes a strict cut.
func (c *Card) DeleteKey(ctx context.Context, h Handle) error {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyDelete, KeyID: uint32(h)}}
	return c.run(ctx, &q)
}

// KeyInfo returns what the card knows of a key.
func (c *Card) KeyInfo(ctx context.Context, h Handle) (regs.KeyInfo, error) {
	var record [regs.KeyInfoSize]byte
	q := request{cmd: regs.Command{Opcode: regs.OpKeyInfo, KeyID: uint32(h)}, dst0: record[:]}
	if err := c.run(ctx, &q); err != nil {
		return regs.KeyInfo{}, err
	}
	i, err := regs.ParseKeyInfo(record[:])
	if err != nil {
		return i, qverr.New(qverr.QUACDriver, "key record of card %s: %w", c.bus.Address(), err)
	}
	return i, nil
}

// ListKeys returns the handles of all keys, by slot.
func (c *Card) ListKeys(ctx context.Context) ([]Handle, error) {
	return c.listKeys(ctx, regs.KeyListAll)
}

// ListKeysOf returns the handles of the keys of one type.
func (c *Card) ListKeysOf(ctx context.Context, t regs.KeyType) ([]Handle, error) {
	return c.listKeys(ctx, uint16(t)+1)
}

func (c *Card) listKeys(ctx context.Context, which uint16) ([]Handle, error) {
	list := make([]byte, 4*regs.KeySlots)
	q := request{cmd: regs.Command{Opcode: regs.OpKeyList, Aux: which}, dst0: list}
	if err := c.run(ctx, &q); err != nil {
		return nil, err
	}
	var out []Handle
	for b := list[:min(int(q.rsp.Out0Len), len(list))]; len(b) >= 4; b = b[4:] {
		out = append(out, Handle(binary.LittleEndian.Uint32(b)))
	}
	return out, nil
}

// GenerateAESKey makes an AES-256 key that stays on the card. attrs may be
// nil: encrypt and decrypt, volatile.
func (c *Card) GenerateAESKey(ctx context.Context, attrs *regs.Attributes) (Handle, error) {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyGenSym, Param: regs.AES256GCM}}
	attributes(&q, attrs)
	err := c.run(ctx, &q)
	return Handle(q.rsp.KeyID), err
}

// ZeroizeKeys destroys every key of the card, persistent ones too, after all
// commands before it and before all after it.
func (c *Card) ZeroizeKeys(ctx context.Context) error {
	q := request{cmd: regs.Command{Opcode: regs.OpKeyZeroizeAll, Aux: regs.KeyZeroizeGuard}}
	return c.run(ctx, &q)
}

// ResponseError is what the card answered; errors.As finds it in the chain of
// an error of a command.
type ResponseError struct {
	Opcode regs.Opcode
	Status regs.RespStatus
	Detail regs.Detail
}

func (e *ResponseError) Error() string {
	return e.Opcode.String() + ": " + e.Status.String() + " (" + e.Detail.String() + ")"
}

// Reason returns the card's reason in an error of a command.
func Reason(err error) (regs.RespStatus, regs.Detail, bool) {
	var r *ResponseError
	if !errors.As(err, &r) {
		return 0, 0, false
	}
	return r.Status, r.Detail, true
}
