package keystore

import (
	"bytes"
	"crypto/sha3"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func summed(data []byte) []byte {
	sum := sha3.Sum256(data)
	return append(bytes.Clone(data), sum[:]...)
}

func sample() []record {
	return []record{
		{Key{ID: uuid.NewString(), Label: "a", Algorithm: pqc.MLKEM768, Usage: []Usage{UsageDecapsulate}, Version: 1,
			CreatedAt: time.Unix(1, 0).UTC(), Public: make([]byte, 1184)}, make([]byte, 64)},
		{Key{ID: uuid.NewString(), Algorithm: pqc.MLDSA44, Public: make([]byte, 1312)}, make([]byte, 2560)},
	}
}

func TestRecords(t *testing.T) {
	want := sample()
	n, err := size(want)
	if err != nil {
		t.Fatal(err)
	}
	room := make([]byte, 0, n)
	b, err := appendRecords(room, want)
	if err != nil || len(b) != n || &b[0] != &room[:1][0] {
		t.Fatalf("%d bytes of %d, or in another place; %v", len(b), n, err)
	}
	got, err := parseRecords(b)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for i := range want {
		if got[i].key.ID != want[i].key.ID || !bytes.Equal(got[i].secret, want[i].secret) || !bytes.Equal(got[i].key.Public, want[i].key.Public) {
			t.Errorf("record %d: %+v", i, got[i].key)
		}
	}
	for n := range b {
		if _, err := parseRecords(b[:n]); !errors.Is(err, qverr.PQCKeystore) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := parseRecords(append(b, 0)); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestRecordsRefused(t *testing.T) {
	for name, spoil := range map[string]func([]record) []record{
		"twice":            func(r []record) []record { return append(r, r[0]) },
		"no algorithm":     func(r []record) []record { r[0].key.Algorithm = pqc.AES256GCM; return r },
		"a short key":      func(r []record) []record { r[0].secret = r[0].secret[1:]; return r },
		"a public key":     func(r []record) []record { r[0].key.Public = r[1].key.Public; return r },
		"no secret":        func(r []record) []record { r[1].secret = nil; return r },
		"an id":            func(r []record) []record { r[1].key.ID = "../x"; return r },
		"a label of nulls": func(r []record) []record { r[1].key.Label = "\x00"; return r },
	} {
		b, err := appendRecords(nil, spoil(sample()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecords(b); !errors.Is(err, qverr.PQCKeystore) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzFile: no file makes the parser fall over, nor ask for more memory than there are bytes.
func FuzzFile(f *testing.F) {
	p, err := wrap(make([]byte, masterSize), []byte("a passphrase for the corpus"))
	if err != nil {
		f.Fatal(err)
	}
	h := header{ID: uuid.New(), Generation: 9, Counter: "tpm", Passphrase: p, Sealed: &sealedKey{"tpm", []byte(`[]`)}}
	clear, err := h.clear(make([]byte, saltSize))
	if err != nil {
		f.Fatal(err)
	}
	records, err := appendRecords(nil, sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(clear, records...), records)
	f.Add(clear, []byte{1, 0, 0, 0})
	f.Add([]byte(magic), []byte{})
	f.Fuzz(func(t *testing.T, data, records []byte) {
		parsed, err := parseParts(data)
		if err != nil && !errors.Is(err, qverr.PQCKeystore) {
			t.Errorf("%v", err)
		}
		if err == nil && !bytes.Equal(append(bytes.Clone(parsed.additional), parsed.sealed...), data) {
			t.Error("parts are lost")
		}
		if _, err := parseFile(summed(data)); (err == nil) != (parsed.salt != nil) {
			t.Errorf("with a checksum: %v", err)
		}
		list, err := parseRecords(records)
		if err != nil {
			if !errors.Is(err, qverr.PQCKeystore) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := appendRecords(nil, list)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecords(again); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}
