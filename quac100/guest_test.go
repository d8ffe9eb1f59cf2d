package quac100_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// guestVariable is the address of a card in a guest that has it by passthrough.
const guestVariable = "QUANTAVIRT_GUEST_CARD"

// A guest that has the card to itself resets it, has it test itself, lets it do ML-KEM, and
// gives it addresses that are not the guest's memory: the card sees an error for each, and
// goes on.
func TestLoadGuest(t *testing.T) {
	address := os.Getenv(guestVariable)
	if address == "" {
		t.Skip("no guest: " + guestVariable + " has no PCI address")
	}
	operations, err := strconv.Atoi(os.Getenv(operationsVariable))
	if err != nil {
		t.Fatal(operationsVariable, err)
	}
	bus, err := openGuestBus(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Reset(); err != nil {
		t.Fatal("function level reset:", err)
	}
	ctx := t.Context()
	card, err := quac100.Open(ctx, bus, patient)
	if err != nil {
		t.Fatal(err)
	}
	if failed, err := card.SelfTest(ctx, regs.TestsAll); err != nil || failed != 0 {
		t.Errorf("self-test: %v, failed %v", err, failed.Names())
	}
	started := time.Now()
	encapsulate(t, card, operations)
	t.Logf("%d operations of ML-KEM, %.0f a second", operations, float64(operations)/time.Since(started).Seconds())
	outside(t, card, bus)
	encapsulate(t, card, 30)
	s := card.Stats()
	if s.Interrupts == 0 || s.SoftResets+s.FunctionResets+s.Dropped+s.Abandoned != 0 || s.PollingOnly {
		t.Errorf("%+v", s)
	}
	t.Logf("%d interrupts, %d doorbells", s.Interrupts, s.Doorbells)
	if err := card.Close(); err != nil {
		t.Error(err)
	}
}

// encapsulate does n operations, from 8 callers: a key, a secret for it, and the secret again.
func encapsulate(t *testing.T, card *quac100.Card, n int) {
	const callers = 8
	var all sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		all.Go(func() {
			for done := i * 3; done < n && errs[i] == nil; done += callers * 3 {
				errs[i] = exchange(t.Context(), card)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func exchange(ctx context.Context, card *quac100.Card) error {
	public, secret, err := card.KEMGenerateKey(ctx, regs.MLKEM768)
	if err != nil {
		return err
	}
	ciphertext, shared, err := card.KEMEncapsulate(ctx, regs.MLKEM768, public)
	if err != nil {
		return err
	}
	again, err := card.KEMDecapsulate(ctx, regs.MLKEM768, secret, ciphertext)
	if err == nil && !bytes.Equal(shared, again) {
		err = errors.New("two secrets of one exchange")
	}
	return err
}

// outside gives the card addresses where the guest has no RAM.
func outside(t *testing.T, card *quac100.Card, bus *guestBus) {
	mine, err := bus.AllocDMA(4096)
	if err != nil {
		t.Fatal(err)
	}
	good := make([]byte, 128)
	for _, bad := range []uint64{0xe000_0000, 0x40_0000_0000} {
		from := regs.Command{Opcode: regs.OpEcho, Src0: bad, Src0Len: 128}
		want(t, "source outside", card.Send(t.Context(), from, nil, good), qverr.QUACDMA, regs.DetailSrcFault)
		to := regs.Command{Opcode: regs.OpEcho, Dst0: bad, Dst0Len: 128}
		want(t, "destination outside", card.Send(t.Context(), to, good, nil), qverr.QUACDMA, regs.DetailDstFault)
		from.Src0 = mine.IOVA
		if err := card.Send(t.Context(), from, nil, good); err != nil {
			t.Error("afterwards:", err)
		}
	}
}
