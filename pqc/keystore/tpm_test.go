package keystore

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
	"quantavirt/pqc"
)

// With a real TPM (swtpm): it opens the keystore for its boot only, and an older file is
// found even when all else goes back with it.
func TestTPM(t *testing.T) {
	d := tpmtest.New(t)
	by := TPM{With: func(use func(*tpm.Device) error) error { return use(d) }}
	if err := by.Usable(); !errors.Is(err, qverr.State) {
		t.Errorf("a boot that was not measured: %v", err)
	}
	if err := d.Extend(11, digest.SHA256{1}); err != nil {
		t.Fatal(err)
	}
	if err := by.Usable(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.sealer, r.counter = by, by
	s := r.open()
	old := r.read()
	r.generate(s, pqc.MLDSA44, "a")
	if err := s.SetPassphrase(secretPhrase); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	newest := r.read()
	r.write(old)
	r.refuses("an older file")
	r.write(newest)
	s = r.open()
	if _, err := s.Get("a"); err != nil {
		t.Fatal(err)
	}

	// Sealed ahead for an update: the register is what the new system will measure.
	next := tpm.Replay([]tpm.Event{{PCR: 11, SHA256: digest.SHA256{1}}, {PCR: 11, SHA256: digest.SHA256{2}}})[11]
	if err := s.Reseal(func(master, before []byte) ([]byte, error) {
		return by.SealAlso(master, json.RawMessage(before), next, "the update")
	}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = r.open() // still the old system
	_ = s.Close()
	if err := d.Extend(11, digest.SHA256{2}); err != nil {
		t.Fatal(err)
	}
	s = r.open()
	if keys, err := s.List(); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
	_ = s.Close()

	// Any other system has to ask for the passphrase.
	if err := d.Extend(12, digest.SHA256{3}); err != nil {
		t.Fatal(err)
	}
	s, err := r.store()
	if s.Status().Condition != Locked || !errors.Is(err, qverr.PQCKeystore) || !strings.Contains(err.Error(), "PCR 12") {
		t.Errorf("another boot: %s, %v", s.Status().Condition, err)
	}
	if err := s.Unlock(secretPhrase, true); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	r.open() // recovered, it is sealed for this boot
}
