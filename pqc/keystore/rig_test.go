package keystore

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// memory is a counter that lives in the test.
type memory struct {
	n    uint64
	fail error
}

func (m *memory) Name() string { return "state" }

func (m *memory) Value() (uint64, error) {
	if m.n == 0 {
		return 0, qverr.New(qverr.NoEnt, "no counter")
	}
	return m.n, m.fail
}

func (m *memory) Count() (uint64, error) {
	if m.fail != nil {
		return 0, m.fail
	}
	if m.n == 0 {
		m.n = 7 // where counters begin is not ours to say
		return m.n, nil
	}
	m.n++
	return m.n, nil
}

// board seals by a mask that only it knows.
type board struct {
	mask byte
	gone error
}

func (b *board) Name() string { return "tpm" }

func (b *board) Seal(master []byte) (json.RawMessage, error) {
	if b.gone != nil {
		return nil, b.gone
	}
	masked := bytes.Clone(master)
	for i := range masked {
		masked[i] ^= b.mask
	}
	return json.Marshal(masked)
}

func (b *board) Unseal(data json.RawMessage) ([]byte, error) {
	if b.gone != nil {
		return nil, b.gone
	}
	var masked []byte
	if err := json.Unmarshal(data, &masked); err != nil {
		return nil, err
	}
	for i := range masked {
		masked[i] ^= b.mask
	}
	return masked, nil
}

type rig struct {
	t       *testing.T
	dir     string
	counter Counter
	sealer  Sealer
	now     time.Time
	crypto  *pqc.Service
}

var secretPhrase = []byte("a passphrase that is long enough")

func newRig(t *testing.T) *rig {
	t.Helper()
	crypto, err := pqc.Open(t.Context(), pqc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, dir: t.TempDir(), counter: &memory{}, sealer: &board{mask: 0x5A},
		now: time.Date(2026, 11, 27, 7, 0, 0, 0, time.UTC), crypto: crypto}
}

// store opens a Store on what is in the rig's directory.
func (r *rig) store() (*Store, error) {
	r.t.Helper()
	s := New(Options{Dir: r.dir, Provider: r.crypto, Counter: r.counter, Sealer: r.sealer, Now: func() time.Time { return r.now }})
	r.t.Cleanup(func() { _ = s.Close() })
	return s, s.Load()
}

// open makes a keystore or opens it.
func (r *rig) open() *Store {
	r.t.Helper()
	s, err := r.store()
	if s.Status().Condition == Absent {
		err = s.Create(nil, false, "")
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) generate(s *Store, a pqc.Algorithm, label string) Key {
	r.t.Helper()
	k, err := s.Generate(r.t.Context(), Request{Algorithm: a, Label: label, Extractable: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

func (r *rig) path() string { return filepath.Join(r.dir, FileName) }

func (r *rig) read() []byte {
	r.t.Helper()
	data, err := os.ReadFile(r.path())
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

func (r *rig) write(data []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.path(), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// refuses holds that the keystore is refused, by every way to open it but recovery, and
// that its file stays what it is.
func (r *rig) refuses(what string) {
	r.t.Helper()
	before, statErr := os.ReadFile(r.path())
	s, err := r.store()
	if !errors.Is(err, qverr.PQCKeystore) || s.Status().Condition != Broken {
		r.t.Errorf("%s: %v, %s", what, err, s.Status().Condition)
	}
	if err := s.Create(secretPhrase, false, ""); err == nil {
		r.t.Errorf("%s: another was made in its place", what)
	}
	if _, err := s.Generate(r.t.Context(), Request{Algorithm: pqc.MLDSA44}); !errors.Is(err, qverr.PQCKeystore) {
		r.t.Errorf("%s: a key is made: %v", what, err)
	}
	_ = s.Close()
	after, _ := os.ReadFile(r.path())
	if statErr == nil && !bytes.Equal(before, after) {
		r.t.Errorf("%s: the file was written to", what)
	}
}

func flip(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1 << (at % 8)
	return data
}
