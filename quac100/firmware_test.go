package quac100_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

func maker(t *testing.T) (*mldsa87.PrivateKey, []byte) {
	t.Helper()
	pk, sk, err := mldsa87.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sk, pk.Bytes()
}

func image(t *testing.T, key *mldsa87.PrivateKey, version, secver uint32) []byte {
	t.Helper()
	b, err := model.SignFirmware(key, regs.FWHeader{FWVersion: version, Build: 9, SecVer: secver, Name: "test"}, seeded("payload", 200_000))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An image goes in while the card works, runs on trial after a reset, and stays
// once it is committed; going back below its security version is refused.
func TestFirmwareUpdate(t *testing.T) {
	ctx := t.Context()
	key, public := maker(t)
	c, _, _ := open(t, model.Config{FWKey: public})
	var last int
	if err := c.UpdateFirmware(ctx, image(t, key, 0x02000000, 2), func(done, total int) { last = done * 100 / total }); err != nil {
		t.Fatal(err)
	}
	if f := c.Firmware(); f.State != regs.FWActivated || f.Running != 0 || f.Next != 1 || last != 100 {
		t.Errorf("activated: %+v, progress %d", f, last)
	}
	if err := c.NOP(ctx, false); err != nil {
		t.Error(err)
	}
	if err := c.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if f := c.Firmware(); f.State != regs.FWTrial || f.Running != 1 || f.Committed || f.Version[1] != 0x02000000 {
		t.Errorf("trial: %+v", f)
	}
	if err := c.CommitFirmware(ctx); err != nil {
		t.Fatal(err)
	}
	if f := c.Firmware(); f.State != regs.FWIdle || !f.Committed || f.MinSecVer != 2 {
		t.Errorf("committed: %+v", f)
	}
	if i, err := c.Info(ctx); err != nil || i.FWVersion != 0x02000000 || i.FWBuild != 9 {
		t.Errorf("%+v, %v", i, err)
	}
	if got := qverr.CodeOf(c.RollbackFirmware(ctx)); got != qverr.QUACFWUpdate {
		t.Errorf("going back below the security version: code %d", got)
	}
	if err := c.UpdateFirmware(ctx, image(t, key, 0x03000000, 3), nil); err != nil {
		t.Errorf("the next update: %v", err)
	}
}

// Images that are not what they should be: refused, and nothing has changed.
func TestFirmwareRefused(t *testing.T) {
	ctx := t.Context()
	key, public := maker(t)
	stranger, _ := maker(t)
	c, m, _ := open(t, model.Config{FWKey: public, FWSecVer: 5})
	good := image(t, key, 0x02000000, 5)
	at := func(off int) []byte {
		b := append([]byte(nil), good...)
		b[off] ^= 1
		return b
	}
	for _, tc := range []struct {
		name  string
		image []byte
		why   regs.FWErrorCode
	}{
		{"magic", at(0), regs.FWErrHeader}, {"product", at(0x10), regs.FWErrProduct}, {"length", at(0x24), regs.FWErrLength},
		{"payload", at(300), regs.FWErrDigest}, {"version", at(0x18), regs.FWErrSignature}, {"signature", at(len(good) - 1), regs.FWErrSignature},
		{"signer", image(t, stranger, 0x02000000, 5), regs.FWErrSigner}, {"security version", image(t, key, 0x02000000, 4), regs.FWErrRollback},
		{"cut short", good[:len(good)-1], regs.FWErrLength},
	} {
		err := c.UpdateFirmware(ctx, tc.image, nil)
		if got := qverr.CodeOf(err); got != qverr.QUACFWUpdate || qverr.From(err).Details["reason"] != itoa(uint32(tc.why)) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.why)
		}
		provokes(qverr.CodeOf(err))
		if f := c.Firmware(); f.Valid[1] || f.Next != 0 || f.State != regs.FWIdle {
			t.Errorf("%s: %+v", tc.name, f)
		}
	}
	if got := qverr.CodeOf(c.UpdateFirmware(ctx, good[:100], nil)); got != qverr.QUACFWUpdate {
		t.Errorf("a stump: code %d", got)
	}
	m.FailFlash(true)
	if got := qverr.CodeOf(c.UpdateFirmware(ctx, good, nil)); got != qverr.QUACFWUpdate {
		t.Errorf("bad flash: code %d", got)
	}
	m.FailFlash(false)
	if err := c.UpdateFirmware(ctx, good, nil); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func itoa(v uint32) string {
	if v < 10 {
		return string(rune('0' + v))
	}
	return itoa(v/10) + itoa(v%10)
}

// An image that nobody commits ends by itself, and so does one that is started
// three times.
func TestFirmwareTrial(t *testing.T) {
	ctx := t.Context()
	key, public := maker(t)
	c, m, _ := open(t, model.Config{FWKey: public, FWTrialTime: 3 * time.Second})
	if err := c.UpdateFirmware(ctx, image(t, key, 0x02000000, 2), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Reset(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.Firmware(); f.State != regs.FWTrial || f.BootTries != 2 {
		t.Errorf("%+v", f)
	}
	if err := c.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	back := func() bool {
		f := c.Firmware()
		cause, _ := regs.SplitResetCause(m.Read32(regs.ResetCause))
		return f.Running == 0 && f.Committed && cause == regs.CauseWatchdog
	}
	if !back() {
		t.Errorf("three boots: %+v", c.Firmware())
	}
	if err := c.UpdateFirmware(ctx, image(t, key, 0x02000000, 2), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trial's end", back)
	eventually(t, "service", func() bool { return c.Healthy() == nil && c.NOP(ctx, false) == nil })
}

// A power cut while a bank is written leaves the running one; the card comes
// back with it and the driver goes on.
func TestFirmwarePowerCut(t *testing.T) {
	ctx := t.Context()
	key, public := maker(t)
	c, m, _ := open(t, model.Config{FWKey: public})
	m.CutPower()
	if err := c.UpdateFirmware(ctx, image(t, key, 0x02000000, 2), nil); err == nil {
		t.Error("the update ended well")
	}
	eventually(t, "service", func() bool { return c.Healthy() == nil && c.NOP(ctx, false) == nil })
	if f := c.Firmware(); f.Running != 0 || f.Valid[1] || !f.Committed {
		t.Errorf("%+v", f)
	}
	if err := c.UpdateFirmware(ctx, image(t, key, 0x02000000, 2), nil); err != nil {
		t.Errorf("the next update: %v", err)
	}
}

// eventually waits for what the card or the driver does by itself.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited too long for %s", what)
		}
	}
}
