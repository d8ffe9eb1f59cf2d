package keystore

import (
	"bytes"
	"errors"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
	"quantavirt/pqc/keyfile"
)

// What is exported and brought in elsewhere is the same key.
func TestTransfer(t *testing.T) {
	from, to := newRig(t), newRig(t)
	a, b := from.open(), to.open()
	for _, algorithm := range []pqc.Algorithm{pqc.MLKEM512, pqc.MLKEM1024, pqc.MLDSA44, pqc.MLDSA87, pqc.SLHDSA128f} {
		k := from.generate(a, algorithm, algorithm.String())
		der, err := a.Export(t.Context(), k.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Import(t.Context(), der.Bytes(), Request{Label: "in " + algorithm.String(), Extractable: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.Algorithm != algorithm || got.Origin != Imported || !bytes.Equal(got.Public, k.Public) {
			t.Errorf("%+v", got)
		}
		again, err := b.Export(t.Context(), got.ID)
		if err != nil || !bytes.Equal(again.Bytes(), der.Bytes()) {
			t.Errorf("%s: exported again it is another: %v", algorithm, err)
		}
		if usages[pqc.FamilySignature][0] == got.Usage[0] {
			if _, err := b.Sign(t.Context(), got.ID, []byte("m"), nil); err != nil {
				t.Error(algorithm, err)
			}
		}
		der.Wipe()
		again.Wipe()
	}
}

func TestTransferRefused(t *testing.T) {
	r := newRig(t)
	s := r.open()
	inside, err := s.Generate(t.Context(), Request{Algorithm: pqc.MLDSA44, Label: "stays"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Export(t.Context(), inside.ID); !errors.Is(err, qverr.Perm) {
		t.Errorf("one that is not extractable: %v", err)
	}
	if _, err := s.Export(t.Context(), "nobody"); !errors.Is(err, qverr.PQCKeyNotFound) {
		t.Errorf("none: %v", err)
	}
	der, err := keyfile.MarshalPrivate(&keyfile.Private{Algorithm: pqc.MLDSA44, Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der  []byte
		r    Request
		want qverr.Code
	}{
		"cut off":               {der[:len(der)-1], Request{}, qverr.Inval},
		"nothing":               {nil, Request{}, qverr.Inval},
		"for what it cannot":    {der, Request{Usage: []Usage{UsageDecapsulate}}, qverr.PQCAlgorithm},
		"a label that is taken": {der, Request{Label: "stays"}, qverr.Exist},
		"expired":               {der, Request{ExpiresAt: r.now}, qverr.Inval},
	} {
		if _, err := s.Import(t.Context(), c.der, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if keys, err := s.List(); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
