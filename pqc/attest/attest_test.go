package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
	"quantavirt/internal/ukifile"
)

var nonce = []byte("sixteen bytes or more")

func identity(t testing.TB) *Identity {
	t.Helper()
	id, err := OpenIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// measured is a system of two sections, and what its stub measures.
func measured(t testing.TB, d *tpm.Device, cmdline string) ukifile.Measurement {
	t.Helper()
	m := ukifile.Measurement{PCR: ukifile.PCR, Bank: "sha256"}
	var events []tpm.Event
	for name, content := range map[string]string{".linux": "a kernel"} {
		events = append(events, section(name, content)...)
		m.Sections = append(m.Sections, ukifile.Extend{Section: name, SHA256: sha256.Sum256([]byte(content))})
	}
	events = append(events, section(".cmdline", cmdline)...)
	m.Sections = append(m.Sections, ukifile.Extend{Section: ".cmdline", SHA256: sha256.Sum256([]byte(cmdline))})
	m.Value = tpm.Replay(events)[ukifile.PCR]
	if d != nil {
		for _, e := range events {
			if err := d.Extend(e.PCR, e.SHA256); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func section(name, content string) []tpm.Event {
	return []tpm.Event{
		{PCR: ukifile.PCR, Type: 0xD, SHA256: sha256.Sum256([]byte(name + "\x00")), Data: []byte(name)},
		{PCR: ukifile.PCR, Type: 0xD, SHA256: sha256.Sum256([]byte(content)), Data: []byte(name)},
	}
}

// report is that of a node that booted with a command line.
func report(t testing.TB, id *Identity, cmdline string) (Report, ukifile.Measurement) {
	t.Helper()
	d := tpmtest.New(t)
	m := measured(t, d, cmdline)
	log := tpmtest.Log(append(section(".linux", "a kernel"), section(".cmdline", cmdline)...)...)
	r, err := New(Node{"id", "name", "0.1"}, nonce, d, log, id, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = Parse(data); err != nil {
		t.Fatal(err)
	}
	return r, m
}

func TestVerify(t *testing.T) {
	id := identity(t)
	good, m := report(t, id, "quiet")
	other, _ := report(t, id, "loud")
	want := Expected{Nonce: nonce, Identity: Fingerprint(id.Public()), System: m}
	if checks, err := good.Verify(want); err != nil || len(checks) != 7 {
		t.Fatalf("%+v %v", checks, err)
	}
	change := func(fn func(r *Report)) Report {
		r := good
		r.PCRs = tpm.Values{}
		for pcr, v := range good.PCRs {
			r.PCRs[pcr] = v
		}
		r.EventLog, r.Signature = bytes.Clone(good.EventLog), bytes.Clone(good.Signature)
		fn(&r)
		return r
	}
	for _, c := range []struct {
		name  string
		r     Report
		want  Expected
		wrong string // names of the checks
		text  string
	}{
		{"another command line", other, want, "system", ".cmdline is "},
		{"another nonce", good, Expected{Nonce: []byte("another nonce....."), Identity: want.Identity, System: m}, "nonce quote", "another nonce"},
		{"another node", good, Expected{Nonce: nonce, Identity: "sha256:00", System: m}, "identity", "not sha256:00"},
		{"a changed name", change(func(r *Report) { r.Hostname = "x" }), want, "signature", "did not sign"},
		{"a changed signature", change(func(r *Report) { r.Signature[9] ^= 1 }), want, "signature", "did not sign"},
		{"no identity", change(func(r *Report) { r.Identity = nil }), want, "identity signature quote", "no ML-DSA-87"},
		{"a register made up", change(func(r *Report) { r.PCRs[4] = digest.SHA256{4} }), want, "quote event log", "not those that the TPM signed"},
		{"the good registers in the other report", change(func(r *Report) { r.Quote = other.Quote }), want, "signature quote", "did not sign"},
		{"a changed log", change(func(r *Report) { r.EventLog[len(r.EventLog)-20] ^= 1 }), want, "event log", "do not lead"},
		{"no log", change(func(r *Report) { r.EventLog = nil }), want, "event log", "not a usable event log"},
	} {
		checks, err := c.r.Verify(c.want)
		var wrong []string
		for _, k := range checks {
			if !k.Good {
				wrong = append(wrong, k.Name)
			}
		}
		if !errors.Is(err, qverr.PQCAttestation) || strings.Join(wrong, " ") != c.wrong || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: wrong are %q: %v", c.name, wrong, err)
		}
	}
}

// Another node's TPM cannot answer for this one.
func TestRelay(t *testing.T) {
	mine, theirs := identity(t), identity(t)
	r, m := report(t, theirs, "quiet")
	r.Identity = mine.Public()
	var err error
	if r.Signature, err = mine.sign(r.statement(), context); err != nil {
		t.Fatal(err)
	}
	_, err = r.Verify(Expected{Nonce: nonce, Identity: Fingerprint(mine.Public()), System: m})
	if !errors.Is(err, qverr.PQCAttestation) || !strings.Contains(err.Error(), "quote: the quote answers another nonce") {
		t.Errorf("%v", err)
	}
}

func TestAdditions(t *testing.T) {
	id := identity(t)
	d := tpmtest.New(t)
	m := measured(t, d, "quiet")
	added := tpm.Event{PCR: 12, Type: 0xD, SHA256: sha256.Sum256([]byte("quantavirt.rescue")), Data: []byte("quantavirt.rescue")}
	if err := d.Extend(added.PCR, added.SHA256); err != nil {
		t.Fatal(err)
	}
	log := tpmtest.Log(append(append(section(".linux", "a kernel"), section(".cmdline", "quiet")...), added)...)
	r, err := New(Node{}, nonce, d, log, id, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(Expected{Nonce: nonce, System: m}); err == nil || !strings.Contains(err.Error(), "additions: something was measured into PCR 12") {
		t.Errorf("%v", err)
	}
	if _, err := r.Verify(Expected{Nonce: nonce, System: m, Extended: []int{12}}); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	first, err := OpenIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	if again, err := OpenIdentity(dir); err != nil || !bytes.Equal(again.Public(), first.Public()) {
		t.Errorf("another identity at the second boot: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIdentity(dir); !errors.Is(err, qverr.PQCKeystore) {
		t.Errorf("a damaged identity: %v", err)
	}
}

func TestParseNonce(t *testing.T) {
	for digits, good := range map[string]bool{"": false, "xx": false, strings.Repeat("0", 30): false, strings.Repeat("0", 32): true, strings.Repeat("a", 128): true, strings.Repeat("a", 130): false} {
		if _, err := ParseNonce(digits); (err == nil) != good || err != nil && !errors.Is(err, qverr.Inval) {
			t.Errorf("%q: %v", digits, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"pcrs":{"11":""},"quote":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			if !errors.Is(err, qverr.Inval) {
				t.Error(err)
			}
			return
		}
		if _, err := r.Verify(Expected{Nonce: nonce}); !errors.Is(err, qverr.PQCAttestation) {
			t.Errorf("%v", err)
		}
	})
}
