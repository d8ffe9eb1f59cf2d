package tpm_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
)

func TestNoTPM(t *testing.T) {
	_, err := tpm.Open(filepath.Join(t.TempDir(), "tpmrm0"))
	if !errors.Is(err, qverr.NoDev) || !strings.Contains(qverr.HintOf(err), "firmware") {
		t.Errorf("%v", err)
	}
}

func TestSeal(t *testing.T) {
	d := tpmtest.New(t)
	maker, err := d.Maker()
	if err != nil || !strings.HasPrefix(maker, "IBM") {
		t.Errorf("maker %q %v", maker, err)
	}
	if err := d.Extend(11, digest.SHA256{1}); err != nil {
		t.Fatal(err)
	}
	now, err := d.Read(7, 11)
	if err != nil {
		t.Fatal(err)
	}
	if now[7] != (digest.SHA256{}) || now[11] == (digest.SHA256{}) {
		t.Errorf("registers: %v", now)
	}
	secret := []byte("what opens the volume")
	sealed, err := d.Seal(secret, now)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Unseal(sealed); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%q %v", got, err)
	}
	damaged := sealed
	damaged.Private = bytes.Clone(sealed.Private)
	damaged.Private[len(damaged.Private)-1] ^= 1
	if _, err := d.Unseal(damaged); err == nil {
		t.Error("a damaged key was unsealed")
	}
	// The policy is the object's, whatever the record says.
	other := sealed
	other.PCRs = []int{7}
	if _, err := d.Unseal(other); !errors.Is(err, qverr.Perm) {
		t.Errorf("with fewer registers: %v", err)
	}
	if _, err := tpmtest.New(t).Unseal(sealed); !errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("by another TPM: %v", err)
	}
	// Any boot that was measured differently.
	if err := d.Extend(11, digest.SHA256{2}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(sealed); !errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), "measured differently") {
		t.Errorf("after another measurement: %v", err)
	}
}

// A secret can be sealed to what the registers will be.
func TestSealAhead(t *testing.T) {
	d := tpmtest.New(t)
	events := []tpm.Event{{PCR: 11, Type: 0xD, SHA256: digest.SHA256{9}}}
	sealed, err := d.Seal([]byte("x"), tpm.Replay(events))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(sealed); !errors.Is(err, qverr.Perm) {
		t.Errorf("too early: %v", err)
	}
	if err := d.Extend(11, events[0].SHA256); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Unseal(sealed); err != nil || string(got) != "x" {
		t.Errorf("%q %v", got, err)
	}
}

func TestUnsealRefusesGarbage(t *testing.T) {
	d := tpmtest.New(t)
	for _, s := range []tpm.Sealed{{}, {PCRs: []int{24}}, {PCRs: []int{-1}}, {PCRs: []int{1}, Public: make([]byte, 2<<10)}} {
		if _, err := d.Unseal(s); !errors.Is(err, qverr.Inval) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, n := range []int{0, tpm.MaxSecret + 1} {
		if _, err := d.Seal(make([]byte, n), tpm.Values{1: {}}); !errors.Is(err, qverr.Inval) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestQuote(t *testing.T) {
	d := tpmtest.New(t)
	if err := d.Extend(4, digest.SHA256{4}); err != nil {
		t.Fatal(err)
	}
	values, err := d.Read(0, 4, 11)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("a nonce of the verifier")
	q, err := d.Quote(nonce, 0, 4, 11)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Verify(nonce, values); err != nil {
		t.Error(err)
	}
	again, err := d.Quote(nonce, 0, 4, 11)
	if err != nil || !bytes.Equal(again.Key, q.Key) {
		t.Errorf("another attestation key: %v", err)
	}
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	stranger, err := tpmtest.New(t).Quote(nonce, 0, 4, 11)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		q      tpm.Quote
		nonce  []byte
		values tpm.Values
		want   string
	}{
		{"another nonce", q, []byte("x"), values, "another nonce"},
		{"another value", q, nonce, tpm.Values{0: values[0], 4: {1}, 11: values[11]}, "not those that the TPM signed"},
		{"fewer registers", q, nonce, tpm.Values{0: values[0], 4: values[4]}, "other registers"},
		{"changed statement", tpm.Quote{Key: q.Key, Attest: flip(q.Attest, -1), Signature: q.Signature}, nonce, values, "did not sign"},
		{"changed signature", tpm.Quote{Key: q.Key, Attest: q.Attest, Signature: flip(q.Signature, -1)}, nonce, values, "did not sign"},
		{"another TPM's key", tpm.Quote{Key: stranger.Key, Attest: q.Attest, Signature: q.Signature}, nonce, values, "did not sign"},
		{"an unrestricted key", tpm.Quote{Key: flip(q.Key, 5), Attest: q.Attest, Signature: q.Signature}, nonce, values, "attestation key"},
		{"nothing", tpm.Quote{}, nonce, values, "cannot be read"},
	} {
		if err := c.q.Verify(c.nonce, c.values); !errors.Is(err, qverr.PQCAttestation) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	d := tpmtest.New(f)
	q, err := d.Quote(nil, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q.Key, q.Attest, q.Signature)
	f.Fuzz(func(t *testing.T, key, attest, signature []byte) {
		q := tpm.Quote{Key: key, Attest: attest, Signature: signature}
		if err := q.Verify(nil, tpm.Values{1: {1}}); !errors.Is(err, qverr.PQCAttestation) {
			t.Errorf("%v", err)
		}
	})
}
