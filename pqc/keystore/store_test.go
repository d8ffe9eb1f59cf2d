package keystore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func TestKeysOutliveTheStore(t *testing.T) {
	r := newRig(t)
	s := r.open()
	k := r.generate(s, pqc.MLDSA65, "release")
	sig, err := s.Sign(t.Context(), "release", []byte("message"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(k.ID); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("after Close: %v", err)
	}
	s = r.open()
	got, err := s.Get(k.ID)
	if err != nil || got.Label != "release" || got.Uses != 1 || !bytes.Equal(got.Public, k.Public) {
		t.Fatalf("%+v, %v", got, err)
	}
	again, err := s.Sign(t.Context(), k.ID, []byte("message"), &pqc.SignOptions{Deterministic: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.crypto.Verifier(t.Context(), pqc.MLDSA65, k.Public)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range [][]byte{sig, again} {
		if err := v.Verify(t.Context(), []byte("message"), sig, nil); err != nil {
			t.Error(err)
		}
	}
}

// The three: one of yesterday, a truncated one, one with a flipped bit.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		sealer Sealer
	}{{"by hardware", &board{mask: 1}}, {"by passphrase", nil}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.sealer = c.sealer
			s, _ := r.store()
			if err := s.Create(secretPhrase, false, ""); err != nil {
				t.Fatal(err)
			}
			yesterday := r.read()
			r.generate(s, pqc.MLKEM768, "a")
			_ = s.Close()
			today := r.read()

			// All bits of the header, and some of the keys.
			for i := 0; i < len(today); i += 1 + i/128 {
				r.write(flip(today, i))
				r.refuses("a flipped bit")
			}
			for _, n := range []int{0, 1, fixed, len(today) / 2, len(today) - 1} {
				r.write(today[:n])
				r.refuses("truncated")
			}
			r.write(append(today, 0))
			r.refuses("longer")

			r.write(yesterday)
			if c.sealer != nil {
				r.refuses("of yesterday")
			} else {
				s, err := r.store()
				if !errors.Is(err, qverr.PQCKeystore) || s.Status().Condition != Locked {
					t.Fatalf("%v", err)
				}
				if err := s.Unlock(secretPhrase, false); !errors.Is(err, qverr.PQCKeystore) || !strings.Contains(err.Error(), "old one") {
					t.Errorf("of yesterday: %v", err)
				}
				if !bytes.Equal(r.read(), yesterday) {
					t.Error("the file was written to")
				}
			}
			if err := os.Remove(r.path()); err != nil {
				t.Fatal(err)
			}
			r.refuses("gone")

			r.write(today)
			s, err := r.store()
			if c.sealer == nil {
				err = s.Unlock(secretPhrase, false)
			}
			if err != nil {
				t.Fatalf("the right one: %v", err)
			}
			if _, err := s.Get("a"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A file that somebody gave a new checksum is refused by its seal.
func TestForgedChecksum(t *testing.T) {
	r := newRig(t)
	r.open()
	data := r.read()
	for _, at := range []int{len(magic), fixed + 20, len(data) - sumSize - 1} {
		r.write(summed(flip(data[:len(data)-sumSize], at)))
		r.refuses("forged")
	}
}

// The counter that goes back is found too, and one that is another's.
func TestCounter(t *testing.T) {
	r := newRig(t)
	s := r.open()
	r.generate(s, pqc.MLKEM512, "a")
	r.generate(s, pqc.MLKEM512, "b")
	_ = s.Close()
	c := r.counter.(*memory)
	c.n -= 2
	r.refuses("a counter that went back")
	c.n = 0
	r.refuses("no counter")
	c.n = 1 << 40
	r.refuses("a counter far ahead")
}

// The node goes down after the file was written and before the counter counted.
func TestCutBeforeTheCount(t *testing.T) {
	r := newRig(t)
	s := r.open()
	r.generate(s, pqc.MLKEM512, "a")
	_ = s.Close()
	c := r.counter.(*memory)
	c.n--
	s = r.open()
	if st := s.Status(); st.Generation != c.n || st.Keys != 1 {
		t.Errorf("%+v, counter %d", st, c.n)
	}
}

// A counter that fails: the change is either in the file or not made at all.
func TestCountFails(t *testing.T) {
	r := newRig(t)
	s := r.open()
	r.generate(s, pqc.MLKEM512, "a")
	c := r.counter.(*memory)
	c.fail = qverr.New(qverr.IO, "the TPM does not answer")
	if _, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLKEM512, Label: "b"}); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("%v", err)
	}
	if _, err := s.List(); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("open on a counter that fails: %v", err)
	}
	c.fail = nil
	s = r.open()
	if keys, err := s.List(); err != nil || len(keys) != 2 {
		t.Errorf("%v, %v", keys, err)
	}
}

// A write that fails changes nothing.
func TestWriteFails(t *testing.T) {
	r := newRig(t)
	s := r.open()
	a := r.generate(s, pqc.MLKEM512, "a")
	before := r.read()
	aside := r.dir + ".aside"
	if err := os.Rename(r.dir, aside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(aside) })
	if err := os.WriteFile(r.dir, nil, 0o600); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	if _, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLKEM512}); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(os.Remove(r.dir), os.Rename(aside, r.dir)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.read(), before) {
		t.Error("the file was changed")
	}
	s = r.open()
	if keys, err := s.List(); err != nil || len(keys) != 1 || keys[0].ID != a.ID {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestPassphrase(t *testing.T) {
	r := newRig(t)
	r.sealer = nil
	s, _ := r.store()
	if err := s.Create(nil, false, ""); !errors.Is(err, qverr.Inval) {
		t.Errorf("without anything that keeps the key: %v", err)
	}
	if err := s.Create([]byte("short"), false, ""); !errors.Is(err, qverr.Inval) {
		t.Errorf("a short passphrase: %v", err)
	}
	if err := s.Create(secretPhrase, false, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(secretPhrase, true, ""); !errors.Is(err, qverr.Exist) {
		t.Errorf("a second one: %v", err)
	}
	other := []byte("another one, long enough too")
	if err := s.SetPassphrase(other); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s, _ = r.store()
	if err := s.Create(secretPhrase, true, ""); !errors.Is(err, qverr.Exist) {
		t.Errorf("in the place of a locked one: %v", err)
	}
	if err := s.Unlock(secretPhrase, false); !errors.Is(err, qverr.Perm) {
		t.Errorf("the old passphrase: %v", err)
	}
	if err := s.Unlock(other, false); err != nil {
		t.Error(err)
	}
	if got := s.Status().OpenedBy; len(got) != 1 || got[0] != "passphrase" {
		t.Errorf("opened by %v", got)
	}
}

// Another board, or a restored backup: the passphrase takes the file as the newest.
func TestRecover(t *testing.T) {
	r := newRig(t)
	s := r.open()
	if err := s.SetPassphrase(secretPhrase); err != nil {
		t.Fatal(err)
	}
	k := r.generate(s, pqc.MLKEM768, "a")
	backup := r.read()
	r.generate(s, pqc.MLKEM768, "b")
	_ = s.Close()

	r.write(backup)
	r.sealer, r.counter = &board{mask: 0x77}, &memory{n: 100}
	s, _ = r.store()
	if err := s.Unlock(secretPhrase, false); !errors.Is(err, qverr.PQCKeystore) {
		t.Fatalf("without being told to: %v", err)
	}
	if !bytes.Equal(r.read(), backup) {
		t.Error("the file was written to")
	}
	if err := s.Unlock(secretPhrase, true); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = r.open() // by the new board
	if keys, err := s.List(); err != nil || len(keys) != 1 || keys[0].ID != k.ID {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := s.Decapsulate(t.Context(), k.ID, make([]byte, 1088)); err != nil {
		t.Error(err)
	}
}

// What cannot be opened is kept when a new one is made in its place.
func TestReplace(t *testing.T) {
	r := newRig(t)
	s := r.open()
	_ = s.Close()
	damaged := flip(r.read(), 40)
	r.write(damaged)
	s, _ = r.store()
	if err := s.Create(nil, true, ""); err != nil {
		t.Fatal(err)
	}
	aside, err := filepath.Glob(r.path() + ".*.refused")
	if err != nil || len(aside) != 1 {
		t.Fatalf("%v, %v", aside, err)
	}
	if data, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(data, damaged) {
		t.Errorf("what was put aside is another: %v", err)
	}
	r.generate(s, pqc.MLKEM512, "a")
}

// Nothing of a key is in clear at rest.
func TestSealedAtRest(t *testing.T) {
	r := newRig(t)
	s := r.open()
	k := r.generate(s, pqc.MLKEM768, "a label that one would find")
	secret := bytes.Clone(s.keys[k.ID].secret.Bytes())
	data := r.read()
	for _, plain := range [][]byte{secret[:16], s.master.Bytes()[:16], []byte("a label"), []byte(k.ID)} {
		if bytes.Contains(data, plain) {
			t.Errorf("%q is in the file", plain)
		}
	}
	if info, err := os.Stat(r.path()); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
