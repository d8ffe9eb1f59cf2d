package sealed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/digest"
	"quantavirt/internal/luks2"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
)

// A volume in the middle of a disk, sealed for the boot of now.
type rig struct {
	t     *testing.T
	d     *tpm.Device
	place Place
	key   []byte // of the volume
	rec   string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xEE}, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, d: tpmtest.New(t), place: Place{Device: path, Offset: 8 << 20, Size: luks2.MinSize}, rec: NewRecoveryKey()}
	r.measure(11, 1)
	region, err := r.place.open(os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	recovery, err := ParseRecoveryKey(r.rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, r.key, err = region.format(recovery, false, r.d, []Policy{r.current()}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) measure(pcr int, what byte) {
	r.t.Helper()
	if err := r.d.Extend(pcr, digest.SHA256{what}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) current() Policy {
	r.t.Helper()
	p, err := Current(r.d)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// opens tells whether the TPM gives the volume's key.
func (r *rig) opens() error {
	r.t.Helper()
	region, err := r.place.open(os.O_RDONLY)
	if err != nil {
		r.t.Fatal(err)
	}
	defer region.Close()
	_, key, err := region.unseal(r.d)
	if err == nil && !bytes.Equal(key, r.key) {
		r.t.Error("another key")
	}
	return err
}

func TestOpensForItsBootOnly(t *testing.T) {
	r := newRig(t)
	if err := r.opens(); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(r.place.Device)
	if err != nil {
		t.Fatal(err)
	}
	around := append(bytes.Clone(disk[:r.place.Offset]), disk[r.place.Offset+r.place.Size:]...)
	if !bytes.Equal(around, bytes.Repeat([]byte{0xEE}, len(around))) {
		t.Error("the disk around the volume was written to")
	}
	if i, err := Inspect(r.place); err != nil || len(i.Sealed) != 1 || i.Sealed[0].For != "this boot" || !i.Recoverable {
		t.Errorf("%+v %v", i, err)
	}
	r.measure(12, 1)
	err = r.opens()
	if !errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), "PCR 12 (what was added to the command line) differs") ||
		strings.Contains(err.Error(), "PCR 11") || !strings.Contains(qverr.HintOf(err), "system unlock") {
		t.Errorf("%v", err)
	}
}

// An update: sealed ahead for the new system, and still for the old one.
func TestResealAhead(t *testing.T) {
	r := newRig(t)
	next := tpm.Replay([]tpm.Event{{PCR: 11, Type: 0xD, SHA256: digest.SHA256{1}}, {PCR: 11, Type: 0xD, SHA256: digest.SHA256{2}}})[11]
	now := r.current()
	if err := Reseal(r.place, "", r.d, now, now.Predict(next, "slot 00000002")); err != nil {
		t.Fatal(err)
	}
	if err := r.opens(); err != nil {
		t.Errorf("the old system: %v", err)
	}
	r.measure(11, 2)
	if err := r.opens(); err != nil {
		t.Errorf("the new system: %v", err)
	}
	r.measure(11, 3)
	if err := r.opens(); !errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), "PCR 11 (the system and its command line) differs") {
		t.Errorf("another: %v", err)
	}
	if err := Reseal(r.place, "", r.d, r.current()); !errors.Is(err, qverr.Perm) {
		t.Errorf("sealed again by a boot that it was not sealed for: %v", err)
	}
	if err := Reseal(r.place, NewRecoveryKey(), r.d, r.current()); !errors.Is(err, qverr.Perm) {
		t.Errorf("sealed again with another recovery key: %v", err)
	}
	if err := Reseal(r.place, r.rec, r.d, r.current()); err != nil {
		t.Fatal(err)
	}
	if err := r.opens(); err != nil {
		t.Errorf("after it was sealed again: %v", err)
	}
}

// A volume that moves to another machine opens there once it was sealed again.
func TestAnotherTPM(t *testing.T) {
	r := newRig(t)
	r.d = tpmtest.New(t)
	r.measure(11, 1)
	if err := r.opens(); !errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("%v", err)
	}
	if err := Reseal(r.place, r.rec, r.d, r.current()); err != nil {
		t.Fatal(err)
	}
	if err := r.opens(); err != nil {
		t.Error(err)
	}
}

// A volume that was made without a recovery key is given one, and another later, in
// boots that it is sealed for only.
func TestSetRecovery(t *testing.T) {
	r := newRig(t)
	region, err := r.place.open(os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	if _, r.key, err = region.format(newSecret(), true, r.d, []Policy{r.current()}); err != nil {
		t.Fatal(err)
	}
	recovers := func(key string) error {
		t.Helper()
		v, err := luks2.Read(region)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Open(region, []byte(key))
		return err
	}
	if i, err := Inspect(r.place); err != nil || i.Recoverable || len(i.Sealed) != 1 {
		t.Errorf("%+v %v", i, err)
	}
	first, second := NewRecoveryKey(), NewRecoveryKey()
	for _, key := range []string{first, second} {
		if err := SetRecovery(r.place, key, r.d); err != nil {
			t.Fatal(err)
		}
		if err := recovers(key); err != nil {
			t.Error(err)
		}
		if err := r.opens(); err != nil {
			t.Errorf("the TPM: %v", err)
		}
		if i, err := Inspect(r.place); err != nil || !i.Recoverable || len(i.Sealed) != 1 {
			t.Errorf("%+v %v", i, err)
		}
	}
	if err := recovers(first); !errors.Is(err, qverr.Perm) {
		t.Errorf("the key before: %v", err)
	}
	if err := SetRecovery(r.place, "x", r.d); !errors.Is(err, qverr.Inval) {
		t.Error(err)
	}
	r.measure(12, 1)
	if err := SetRecovery(r.place, first, r.d); !errors.Is(err, qverr.Perm) {
		t.Errorf("in another boot: %v", err)
	}
	if err := recovers(second); err != nil {
		t.Errorf("after it was refused: %v", err)
	}
}

func TestNotMeasured(t *testing.T) {
	if _, err := Current(tpmtest.New(t)); !errors.Is(err, qverr.State) {
		t.Errorf("%v", err)
	}
}

func TestNoSeals(t *testing.T) {
	r := newRig(t)
	if err := Reseal(r.place, "", r.d); !errors.Is(err, qverr.Inval) {
		t.Errorf("for no boot: %v", err)
	}
	if err := r.opens(); err != nil {
		t.Errorf("a refusal changed something: %v", err)
	}
}

func TestRecoveryKey(t *testing.T) {
	key := NewRecoveryKey()
	spaced := " " + strings.ToUpper(key[:20]) + " " + key[20:] + "\n"
	if got, err := ParseRecoveryKey(spaced); err != nil || string(got) != key {
		t.Errorf("%s: %s %v", spaced, got, err)
	}
	if key == NewRecoveryKey() {
		t.Error("always the same")
	}
	for _, bad := range []string{"", key[1:], key + "c", strings.Replace(key, "-", "", 1), "a" + key[1:]} {
		if _, err := ParseRecoveryKey(bad); !errors.Is(err, qverr.Inval) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDistinct(t *testing.T) {
	p := Policy{For: "a", Values: tpm.Values{7: {}, 11: {1}}}
	list := []Policy{p, p.Predict(digest.SHA256{1}, "the same"), p.Predict(digest.SHA256{2}, "b")}
	for i := range 20 {
		list = append(list, p.Predict(digest.SHA256{3, byte(i)}, "more"))
	}
	got := Distinct(list)
	if len(got) != maxSeals || got[0].For != "a" || got[1].For != "b" {
		t.Errorf("%+v", got)
	}
}
