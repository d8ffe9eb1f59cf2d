package trust

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/efivar"
	"quantavirt/internal/initapi"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/pqc/attest"
)

// rig is a machine without a TPM.
type rig struct {
	*Service
	boot     initapi.Boot
	running  int
	unlocked string
}

func (r *rig) Unlock(_ context.Context, key string) error {
	r.unlocked = key
	return nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{boot: initapi.Boot{Medium: "direct"}}
	dir := t.TempDir()
	var err error
	r.Service, err = New(Deps{
		Log: slog.New(slog.DiscardHandler), Init: r, Boot: func() initapi.Boot { return r.boot }, Running: func() int { return r.running },
		Node: func() attest.Node { return attest.Node{} }, Keystore: filepath.Join(dir, "keystore"),
		TPM: filepath.Join(dir, "tpmrm0"), EventLog: filepath.Join(dir, "log"), EFI: filepath.Join(dir, "efi"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) variable(t *testing.T, name string, data ...byte) {
	t.Helper()
	path := filepath.Join(r.EFI, "efivars", name+"-"+efivar.Global.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte{6, 0, 0, 0}, data...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is missing is said with a code, and is no more than that.
func TestWithoutTPM(t *testing.T) {
	r := newRig(t)
	i := r.Info(t.Context())
	if i.Tpm || i.SecureBoot != spec.TrustSecureBootAbsent || !strings.HasPrefix(i.Identity, "sha256:") {
		t.Errorf("%+v", i)
	}
	codes := map[int32]bool{}
	for _, p := range i.Problems {
		codes[p.Code] = true
		if p.Recovery == "" {
			t.Errorf("%s says nothing of what to do", p.Message)
		}
	}
	if len(i.Problems) != 2 || !codes[int32(qverr.NoDev)] || !codes[int32(qverr.Unsupported)] {
		t.Errorf("%+v", i.Problems)
	}
	if err := r.CanEncrypt(t.Context()); !errors.Is(err, qverr.NoDev) || qverr.HintOf(err) == "" {
		t.Errorf("encrypt: %v", err)
	}
	if _, err := r.Measurements(t.Context()); !errors.Is(err, qverr.NoDev) {
		t.Errorf("measurements: %v", err)
	}
	if _, err := r.Attest(t.Context(), strings.Repeat("00", 16)); !errors.Is(err, qverr.NoDev) {
		t.Errorf("attest: %v", err)
	}
	if _, err := r.Attest(t.Context(), "00"); !errors.Is(err, qverr.Inval) {
		t.Errorf("attest with a short nonce: %v", err)
	}
}

// A VM is attested without a TPM as well; the verifier is told that the host is not.
func TestAttestVMWithoutTPM(t *testing.T) {
	r := newRig(t)
	digest := strings.Repeat("0a", 32)
	vm := attest.Started{At: time.Unix(1e9, 0), Measures: attest.Measures{
		Name: "web", UUID: "u", Machine: "m", CPUs: 1, Memory: 1 << 20, Firmware: "direct", Kernel: digest, Disks: []attest.Disk{}, Card: "none", Config: digest,
	}}
	if _, err := r.AttestVM(t.Context(), vm, "00"); !errors.Is(err, qverr.Inval) {
		t.Errorf("a short nonce: %v", err)
	}
	nonce := bytes.Repeat([]byte{7}, 16)
	report, err := r.AttestVM(t.Context(), vm, hex.EncodeToString(nonce))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	back, err := attest.ParseVM(data)
	if err != nil || back.Statement.TPM || back.Host != nil {
		t.Fatalf("%+v %v", back, err)
	}
	want := attest.ExpectedVM{Nonce: nonce, Identity: r.Info(t.Context()).Identity, Policy: attest.Policy{"kernel": digest}}
	if _, err := back.Verify(want); err != nil {
		t.Errorf("any host: %v", err)
	}
	want.Host = &attest.Expected{}
	if _, err := back.Verify(want); !errors.Is(err, qverr.PQCAttestation) {
		t.Errorf("a measured host: %v", err)
	}
}

func TestSecureBootStates(t *testing.T) {
	for _, c := range []struct {
		secure, setup []byte
		want          spec.TrustSecureBoot
		code          qverr.Code
	}{
		{[]byte{1}, []byte{0}, spec.TrustSecureBootOn, 0},
		{[]byte{0}, []byte{0}, spec.TrustSecureBootOff, qverr.State},
		{[]byte{0}, []byte{1}, spec.TrustSecureBootSetup, qverr.State},
		{[]byte{0}, nil, spec.TrustSecureBootOff, qverr.State},
		{nil, nil, spec.TrustSecureBootAbsent, qverr.Unsupported},
		{[]byte{1, 1}, nil, spec.TrustSecureBootAbsent, qverr.IO},
	} {
		r := newRig(t)
		if err := os.MkdirAll(r.EFI, 0o755); err != nil {
			t.Fatal(err)
		}
		if c.secure != nil {
			r.variable(t, "SecureBoot", c.secure...)
		}
		if c.setup != nil {
			r.variable(t, "SetupMode", c.setup...)
		}
		got, err := r.secureBoot()
		if got != c.want || c.code == 0 && err != nil || c.code != 0 && !errors.Is(err, c.code) {
			t.Errorf("%v %v: %s %v", c.secure, c.setup, got, err)
		}
	}
}

// Only Secure Boot that is on refuses systems.
func TestStarts(t *testing.T) {
	unsigned := petest.Image(512, petest.Section{Name: ".text", Data: "code"})
	for _, c := range []struct {
		secure []byte
		db     []byte
		code   qverr.Code
	}{
		{nil, nil, 0}, {[]byte{0}, []byte{}, 0}, {[]byte{1}, nil, 0}, {[]byte{1}, []byte("damaged"), 0}, {[]byte{1}, []byte{}, qverr.Perm},
	} {
		r := newRig(t)
		if c.secure != nil {
			r.variable(t, "SecureBoot", c.secure...)
		}
		if c.db != nil {
			path := filepath.Join(r.EFI, "efivars", "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f")
			if err := os.WriteFile(path, append([]byte{0x27, 0, 0, 0}, c.db...), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := r.Starts(bytes.NewReader(unsigned), int64(len(unsigned)))
		if c.code == 0 && err != nil || c.code != 0 && !errors.Is(err, c.code) {
			t.Errorf("%v %q: %v", c.secure, c.db, err)
		}
	}
}

func TestUnlockRefusals(t *testing.T) {
	key := sealed.NewRecoveryKey()
	for _, c := range []struct {
		name    string
		locked  bool
		running int
		key     string
		code    qverr.Code
	}{
		{"nothing is shut", false, 0, key, qverr.State},
		{"VMs run", true, 1, key, qverr.Busy},
		{"no key", true, 0, "x", qverr.Inval},
		{"good", true, 0, key, 0},
	} {
		r := newRig(t)
		r.boot.Data.Locked, r.running = c.locked, c.running
		err := r.Service.Unlock(t.Context(), c.key)
		if c.code != 0 && (!errors.Is(err, c.code) || r.unlocked != "") || c.code == 0 && (err != nil || r.unlocked != key) {
			t.Errorf("%s: %v, PID 1 was given %q", c.name, err, r.unlocked)
		}
	}
}

// A recovery key is made for an open, encrypted volume.
func TestRecoveryKeyRefusals(t *testing.T) {
	r := newRig(t)
	if err := r.SetRecoveryKey(t.Context(), sealed.NewRecoveryKey()); !errors.Is(err, qverr.State) {
		t.Errorf("not encrypted: %v", err)
	}
	r.boot.Data.Encrypted, r.boot.Data.Locked = true, true
	if err := r.SetRecoveryKey(t.Context(), sealed.NewRecoveryKey()); !errors.Is(err, qverr.State) || !strings.Contains(qverr.HintOf(err), "unlock") {
		t.Errorf("shut: %v", err)
	}
	r.boot.Data.Locked = false
	if err := r.SetRecoveryKey(t.Context(), "x"); !errors.Is(err, qverr.Inval) {
		t.Errorf("no key: %v", err)
	}
	if err := r.SetRecoveryKey(t.Context(), sealed.NewRecoveryKey()); !errors.Is(err, qverr.NoDev) {
		t.Errorf("no TPM: %v", err)
	}
}

// An update of a node whose data volume is not encrypted needs no TPM; one whose
// volume is shut must not be tried.
func TestResealFor(t *testing.T) {
	r := newRig(t)
	if err := r.ResealFor(strings.NewReader(""), 0, "slot 00000002"); err != nil {
		t.Errorf("not encrypted: %v", err)
	}
	if _, err := r.Reseal(t.Context(), ""); !errors.Is(err, qverr.State) {
		t.Errorf("not encrypted, by hand: %v", err)
	}
	r.boot.Data.Encrypted, r.boot.Data.Locked = true, true
	if err := r.ResealFor(strings.NewReader(""), 0, "slot 00000002"); !errors.Is(err, qverr.State) {
		t.Errorf("shut: %v", err)
	}
	r.boot.Data.Locked = false
	if err := r.ResealFor(strings.NewReader("x"), 1, "slot 00000002"); !errors.Is(err, qverr.Inval) {
		t.Errorf("no system: %v", err)
	}
}
