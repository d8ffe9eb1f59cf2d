package model

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"quantavirt/quac100/regs"
)

// The known answers of the KEM self-test, made again with the standard library's implementation.
func TestKnownAnswersKEM(t *testing.T) {
	dk, err := mlkem.NewDecapsulationKey768(katSeed(64, 1))
	if err != nil {
		t.Fatal(err)
	}
	ek := dk.EncapsulationKey()
	k, ct, err := mlkemtest.Encapsulate768(ek, katSeed(32, 0x80))
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(ct); got != katCiphertext {
		t.Errorf("ciphertext %s", got)
	}
	if got := digest(k); got != katShared {
		t.Errorf("shared secret %s", got)
	}
	scheme := kemScheme(regs.MLKEM768)
	pk, sk := scheme.DeriveKeyPair(katSeed(64, 1))
	a, _ := pk.MarshalBinary()
	b, _ := sk.MarshalBinary()
	if !bytes.Equal(a, ek.Bytes()) {
		t.Error("encapsulation keys differ")
	}
	if got := digest(a, b); got != katKeys {
		t.Errorf("keys %s", got)
	}
	if failed := testKEM(); failed != 0 {
		t.Errorf("failed: %v", failed.Names())
	}
}

func TestKnownAnswersSignature(t *testing.T) {
	var seed [mldsa65.SeedSize]byte
	copy(seed[:], katSeed(len(seed), 1))
	pk, sk := mldsa65.NewKeyFromSeed(&seed)
	if got := digest(pk.Bytes(), sk.Bytes()); got != katSigKeys {
		t.Errorf("keys %s", got)
	}
	sig := make([]byte, mldsa65.SignatureSize)
	if err := mldsa65.SignTo(sk, []byte("QUAC 100 self-test"), []byte("kat"), false, sig); err != nil {
		t.Fatal(err)
	}
	if got := digest(sig); got != katSignature {
		t.Errorf("signature %s", got)
	}
	if failed := testSignature(); failed != 0 {
		t.Errorf("failed: %v", failed.Names())
	}
}

func TestUnitsOfTheSelfTest(t *testing.T) {
	for name, f := range map[string]func() bool{"NTT": nttSelfTest, "DMA": testDMA, "memory": testMemory, "alarms": testAlarms} {
		if !f() {
			t.Errorf("%s fails", name)
		}
	}
}
