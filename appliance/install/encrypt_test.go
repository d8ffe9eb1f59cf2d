package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/ukifile"
)

// Where the volume cannot be encrypted, the disk is as it was.
func TestEncryptionIsRefusedInTime(t *testing.T) {
	m := newMachine(t)
	d := m.disk(gib, nil)
	m.CanEncrypt = func(context.Context) error { return qverr.New(qverr.NoDev, "no TPM") }
	for key, want := range map[string]qverr.Code{"too short": qverr.Inval, sealed.NewRecoveryKey(): qverr.NoDev} {
		if _, err := m.Start(Request{Disk: "serial:SN0", DataOnly: true, RecoveryKey: key}, Source{}, ""); !errors.Is(err, want) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := m.Start(Request{Disk: "serial:SN0", DataOnly: true, Encrypt: true}, Source{}, ""); !errors.Is(err, qverr.NoDev) {
		t.Errorf("without a recovery key: %v", err)
	}
	wantBlank(t, d)
}

// The file system is made in the opened volume, which is closed then, and the
// volume is where QV-DATA is, for the system that is installed.
func TestEncrypted(t *testing.T) {
	m := newMachine(t)
	d := m.disk(4*gib, nil)
	opened := filepath.Join(t.TempDir(), "dm-0")
	if err := os.WriteFile(opened, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(opened, 64<<20); err != nil {
		t.Fatal(err)
	}
	var place sealed.Place
	var version string
	key, closed := sealed.NewRecoveryKey(), false
	m.CanEncrypt = func(context.Context) error { return nil }
	m.Encrypt = func(_ context.Context, p sealed.Place, recoveryKey string, uki *ukifile.File) (string, func() error, error) {
		release, err := uki.Release()
		if recoveryKey != key {
			t.Errorf("recovery key %s", recoveryKey)
		}
		place, version = p, release["ID"]
		return opened, func() error { closed = true; return nil }, err
	}
	end := m.wait(m.Start(Request{Disk: "serial:SN0", RecoveryKey: key}, m.upload(uki("quantavirt")), ""))
	if end.State != spec.TaskStateSucceeded {
		t.Fatalf("%+v", end)
	}
	parts, err := disklayout.Disk{Size: d.SizeBytes, SectorSize: d.SectorBytes, ESP: disklayout.ESPInstalled, Data: true}.Partitions()
	if err != nil {
		t.Fatal(err)
	}
	data := parts[len(parts)-1]
	if place != (sealed.Place{Device: d.Device, Offset: data.Offset, Size: data.Size}) || version != "quantavirt" || !closed {
		t.Errorf("%+v, want offset %d and size %d; system %q, closed %v", place, data.Offset, data.Size, version, closed)
	}
	hosttool.Run(t, "e2fsck", "-fn", opened)
	given := key
	key, closed = "", false
	m.disk(4*gib, nil)
	if end := m.wait(m.Start(Request{Disk: "serial:SN1", Encrypt: true}, m.upload(uki("quantavirt")), "")); end.State != spec.TaskStateSucceeded || !closed {
		t.Errorf("without a recovery key: %+v, closed %v", end, closed)
	}
	m.Encrypt = func(context.Context, sealed.Place, string, *ukifile.File) (string, func() error, error) {
		return "", nil, qverr.New(qverr.State, "not measured")
	}
	if end := m.wait(m.Start(Request{Disk: "serial:SN0", RecoveryKey: given}, m.upload(uki("quantavirt")), "")); end.State != spec.TaskStateFailed || end.Error.Code != qverr.State {
		t.Errorf("%+v", end)
	}
}
