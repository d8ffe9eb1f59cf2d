package quac100_test

import (
	"context"
	"testing"
	"time"

	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// Nothing of a secret stays in memory that the card can reach: not after an
// operation, not after one that failed, not after one that was left.
func TestWiped(t *testing.T) {
	ctx := t.Context()
	c, m, bus := open(t, model.Config{})
	public, secret := make([]byte, 1184), make([]byte, 2400)
	if err := c.KEMKeygen(ctx, regs.MLKEM768, nil, public, secret); err != nil {
		t.Fatal(err)
	}
	ct, shared := make([]byte, 1088), make([]byte, 32)
	if err := c.Encapsulate(ctx, regs.MLKEM768, quac100.Inline(public), nil, ct, shared); err != nil {
		t.Fatal(err)
	}
	if err := c.Decapsulate(ctx, regs.MLKEM768, quac100.Inline(secret), ct, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	long := seeded("long", 3<<20)
	sealed := make([]byte, len(long)+16)
	if err := c.EncryptGCM(ctx, quac100.Inline(shared), make([]byte, 12), nil, long, sealed); err != nil {
		t.Fatal(err)
	}
	sealed[0] ^= 1
	_ = c.DecryptGCM(ctx, quac100.Inline(shared), make([]byte, 12), nil, sealed, make([]byte, len(long)))
	m.SetLatency(func(regs.Opcode) time.Duration { return 50 * time.Millisecond })
	left, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	_ = c.Decapsulate(left, regs.MLKEM768, quac100.Inline(secret), ct, make([]byte, 32))
	m.SetLatency(nil)
	if err := c.NOP(ctx, true); err != nil {
		t.Fatal(err)
	}
	for what, p := range map[string][]byte{
		"secret key": secret[:64], "its end": secret[2336:], "shared key": shared, "plaintext": long[:64], "its end, too": long[len(long)-64:],
	} {
		if bus.Holds(p) {
			t.Errorf("%s: it is still in DMA memory", what)
		}
	}
}
