package keystore

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func TestGenerateRefuses(t *testing.T) {
	r := newRig(t)
	s := r.open()
	r.generate(s, pqc.MLKEM512, "taken")
	for name, c := range map[string]struct {
		request Request
		want    qverr.Code
	}{
		"no algorithm":          {Request{}, qverr.PQCAlgorithm},
		"a hash":                {Request{Algorithm: pqc.SHA256}, qverr.PQCAlgorithm},
		"a cipher":              {Request{Algorithm: pqc.AES256GCM}, qverr.PQCAlgorithm},
		"a KEM that signs":      {Request{Algorithm: pqc.MLKEM512, Usage: []Usage{UsageSign}}, qverr.PQCAlgorithm},
		"an unknown usage":      {Request{Algorithm: pqc.MLKEM512, Usage: []Usage{"fly"}}, qverr.PQCAlgorithm},
		"a usage twice":         {Request{Algorithm: pqc.MLDSA44, Usage: []Usage{UsageSign, UsageSign}}, qverr.Inval},
		"expired already":       {Request{Algorithm: pqc.MLKEM512, ExpiresAt: r.now}, qverr.Inval},
		"a label too long":      {Request{Algorithm: pqc.MLKEM512, Label: strings.Repeat("x", MaxLabel+1)}, qverr.Inval},
		"a label with a bell":   {Request{Algorithm: pqc.MLKEM512, Label: "a\a"}, qverr.Inval},
		"a label that is taken": {Request{Algorithm: pqc.MLKEM512, Label: "taken"}, qverr.Exist},
	} {
		if _, err := s.Generate(t.Context(), c.request); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if keys, err := s.List(); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// Every key algorithm, in the store and out of it again.
func TestAlgorithms(t *testing.T) {
	r := newRig(t)
	s := r.open()
	for _, p := range pqc.Algorithms() {
		if usages[p.Family] == nil || strings.HasPrefix(p.Name, "SLH-DSA") && !strings.HasSuffix(p.Name, "f") {
			continue // the small sets take seconds, and go the same way
		}
		k := r.generate(s, p.Algorithm, p.Name)
		switch p.Family {
		case pqc.FamilySignature:
			sig, err := s.Sign(t.Context(), k.ID, []byte("m"), &pqc.SignOptions{Context: []byte("c")})
			if err != nil {
				t.Fatal(p.Name, err)
			}
			v, err := r.crypto.Verifier(t.Context(), p.Algorithm, k.Public)
			if err != nil {
				t.Fatal(p.Name, err)
			}
			if err := v.Verify(t.Context(), []byte("m"), sig, &pqc.SignOptions{Context: []byte("c")}); err != nil {
				t.Error(p.Name, err)
			}
		case pqc.FamilyKEM:
			ciphertext, want := encapsulate(t, r, k)
			got, err := s.Decapsulate(t.Context(), k.ID, ciphertext)
			if err != nil {
				t.Fatal(p.Name, err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Error(p.Name, "another shared key")
			}
			got.Wipe()
		}
	}
}

func encapsulate(t *testing.T, r *rig, k Key) (ciphertext, shared []byte) {
	t.Helper()
	p, err := k.Algorithm.Params()
	if err != nil {
		t.Fatal(err)
	}
	e, err := r.crypto.Encapsulator(t.Context(), k.Algorithm, k.Public)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, shared = make([]byte, p.Output), make([]byte, p.Shared)
	if err := e.Encapsulate(t.Context(), ciphertext, shared); err != nil {
		t.Fatal(err)
	}
	return ciphertext, shared
}

// What a key may do, in each of its states.
func TestMay(t *testing.T) {
	r := newRig(t)
	s := r.open()
	signs := r.generate(s, pqc.MLDSA44, "signs")
	kem := r.generate(s, pqc.MLKEM512, "kem")
	verifies, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLDSA44, Usage: []Usage{UsageVerify}})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(ref string) error { _, err := s.Sign(t.Context(), ref, []byte("m"), nil); return err }
	decaps := func(ref string) error {
		_, err := s.Decapsulate(t.Context(), ref, make([]byte, 768))
		return err
	}
	check := func(what string, err error, want qverr.Code) {
		t.Helper()
		if qverr.CodeOf(err) != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("signs", sign(signs.ID), qverr.Success)
	check("decapsulates", decaps(kem.ID), qverr.Success)
	check("a KEM signs", sign(kem.ID), qverr.PQCAlgorithm)
	check("a signature key decapsulates", decaps(signs.ID), qverr.PQCAlgorithm)
	check("for verifying only", sign(verifies.ID), qverr.Perm)
	check("no such key", sign("nobody"), qverr.PQCKeyNotFound)
	_, err = s.Decapsulate(t.Context(), kem.ID, make([]byte, 767))
	check("a short ciphertext", err, qverr.PQCDecaps)

	for _, label := range []string{"signs", "kem"} {
		if _, err := s.Rotate(t.Context(), label, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	check("a retired key signs", sign(signs.ID), qverr.State)
	check("a retired key decapsulates", decaps(kem.ID), qverr.Success)
	check("the new one signs", sign("signs"), qverr.Success)

	for _, k := range []string{"signs", kem.ID} {
		if k, err := s.Expire(k, r.now); err != nil || k.State(r.now) != Expired {
			t.Fatalf("%+v, %v", k, err)
		}
	}
	check("an expired key signs", sign("signs"), qverr.PQCKeyExpired)
	check("an expired key decapsulates", decaps(kem.ID), qverr.PQCKeyExpired)

	check("destroy", s.Destroy(t.Context(), "signs"), qverr.Success)
	check("a destroyed key signs", sign("signs"), qverr.PQCKeyNotFound)
	check("destroy it again", s.Destroy(t.Context(), "signs"), qverr.PQCKeyNotFound)
}

func TestRotate(t *testing.T) {
	r := newRig(t)
	s := r.open()
	old, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLKEM768, Label: "disk", ExpiresAt: r.now.Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(48 * time.Hour) // expired, which rotation is for
	made, err := s.Rotate(t.Context(), "disk", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Version != 2 || made.Replaces != old.ID || made.Label != "disk" || !made.ExpiresAt.Equal(r.now.Add(24*time.Hour)) || bytes.Equal(made.Public, old.Public) {
		t.Errorf("%+v", made)
	}
	if was, err := s.Get(old.ID); err != nil || was.ReplacedBy != made.ID || was.RetiredAt.IsZero() {
		t.Errorf("%+v, %v", was, err)
	}
	if now, err := s.Get("disk"); err != nil || now.ID != made.ID {
		t.Errorf("the label is %s's, %v", now.ID, err)
	}
	if _, err := s.Rotate(t.Context(), old.ID, time.Time{}); !errors.Is(err, qverr.State) {
		t.Errorf("twice: %v", err)
	}
}

// A key is gone from memory when it is destroyed, and all are when the store is closed.
func TestWiped(t *testing.T) {
	r := newRig(t)
	s := r.open()
	a, b := r.generate(s, pqc.MLDSA87, "a"), r.generate(s, pqc.MLKEM1024, "b")
	first, second, master := s.keys[a.ID].secret, s.keys[b.ID].secret, s.master
	if err := s.Destroy(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if first.Bytes() != nil || second.Bytes() == nil {
		t.Error("destroyed: the wrong ones are wiped")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if second.Bytes() != nil || master.Bytes() != nil {
		t.Error("closed: something is left")
	}
}

// Uses are counted by many at once, and saved while the store stays open.
func TestUses(t *testing.T) {
	r := newRig(t)
	s := r.open()
	k := r.generate(s, pqc.MLKEM512, "a")
	generation := s.Status().Generation
	ciphertext, _ := encapsulate(t, r, k)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range saveAfter / 4 {
				shared, err := s.Decapsulate(t.Context(), "a", ciphertext)
				if err != nil {
					t.Error(err)
					return
				}
				shared.Wipe()
				if _, err := s.List(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s.Status().Generation != generation {
		t.Error("uses made a new generation")
	}
	other := r.open() // from the file, without closing the first
	got, err := other.Get("a")
	if err != nil || got.Uses < saveAfter || got.Uses > 2*saveAfter {
		t.Errorf("%d uses saved, %v", got.Uses, err)
	}
	if now, _ := s.Get("a"); now.Uses != 2*saveAfter {
		t.Errorf("%d uses", now.Uses)
	}
}
