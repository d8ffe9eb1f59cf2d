package quac100_test

import (
	"testing"

	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

func TestCounters(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	before, err := c.Counters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	public, secret := make([]byte, 1312), make([]byte, 2560)
	for range 3 {
		if err := c.SignKeygen(ctx, regs.MLDSA44, nil, public, secret); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EncryptGCM(ctx, quac100.Inline(make([]byte, 32)), make([]byte, 12), nil, make([]byte, 500), make([]byte, 516)); err != nil {
		t.Fatal(err)
	}
	_ = c.DeleteKey(ctx, 0x10000)
	after, err := c.Counters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var bars uint64
	for _, n := range after.Latency {
		bars += uint64(n)
	}
	if after.SigKeygen-before.SigKeygen != 3 || after.AES != 1 || after.AESBytes != 500 || after.Failed != 1 ||
		bars != after.OK+after.Failed || after.At <= before.At || after.Read == 0 || after.Written == 0 {
		t.Errorf("%+v", after)
	}
}
