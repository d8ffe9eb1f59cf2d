package system

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/beevik/ntp"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/disks"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

type vms struct{}

func (vms) Counts() spec.VMCounts { return spec.VMCounts{Total: 2, Running: 1} }
func (vms) Adopted() int          { return 1 }
func (vms) Committed() int64      { return 5 }
func (vms) Admissible() int64     { return 7 }

type cards struct{ list []spec.Card }

func (c cards) Overview(context.Context) []spec.Card { return c.list }
func (c cards) Provider(context.Context) string {
	if len(c.list) > 0 {
		return "quac100"
	}
	return "software"
}

type fakeInit struct{ boot initapi.Boot }

func (f *fakeInit) Boot(context.Context, bool) (initapi.Boot, error) { return f.boot, nil }
func (f *fakeInit) BootStep(_ context.Context, step string) (initapi.Boot, error) {
	if step != "data-volume" {
		return initapi.Boot{}, qverr.New(qverr.NoEnt, "no step %s", step)
	}
	return f.boot, nil
}
func (f *fakeInit) Reboot(context.Context) error   { return nil }
func (f *fakeInit) PowerOff(context.Context) error { return nil }

func testSystem(t *testing.T, dir string, init Init, c cards) *Service {
	t.Helper()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := New(db, Deps{
		Log: slog.New(slog.DiscardHandler), Init: init, DataDir: dir, VMs: vms{}, Cards: c,
		Uplink:        func() spec.UplinkInfo { return spec.UplinkInfo{State: "up", Addresses: []string{"192.0.2.7/24"}} },
		Trust:         trusted,
		TLS:           func() spec.TLSInfo { return spec.TLSInfo{Policy: spec.TLSInfoPolicyPQOnly} },
		Configuration: func() spec.ConfigurationInfo { return spec.ConfigurationInfo{} },
		Name:          func() string { return "" },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trusted is a node that lacks a TPM, which is no problem, and was booted by
// something else than it thinks, which is.
func trusted(context.Context) spec.Trust {
	return spec.Trust{Problems: []spec.Problem{
		*initapi.NewProblem(qverr.New(qverr.NoDev, "no TPM").WithHint("x")), *initapi.NewProblem(qverr.New(qverr.PQCAttestation, "another PCR 11").WithHint("x")),
	}}
}

func names(ps []spec.Problem) map[string]int {
	out := make(map[string]int)
	for _, p := range ps {
		out[p.Name]++
	}
	return out
}

func TestInfoOfANodeWithEverything(t *testing.T) {
	init := &fakeInit{boot: initapi.Boot{
		Hostname: "node7", BootID: "b1", Steps: []initapi.Step{{Name: "mounts"}}, Data: initapi.DataVolume{Persistent: true, Device: "/dev/vda1"},
		KVM: initapi.KVM{Available: true, NestedPaging: true}, IOMMU: initapi.IOMMU{Available: true, Kind: "intel"}, Restarts: 2,
	}}
	s := testSystem(t, t.TempDir(), init, cards{[]spec.Card{{Address: "0000:00:05.0", Healthy: true}}})
	if !errors.Is(s.Ready(), qverr.Again) {
		t.Errorf("before the start: %v", s.Ready())
	}
	s.SetReady(nil)
	if s.Ready() != nil {
		t.Error(s.Ready())
	}
	info, err := s.Info(t.Context())
	if err != nil || len(info.Problems) != 1 || info.Problems[0].Name != "PQC_ERR_ATTESTATION" || info.Hostname != "node7" || info.Daemon.Restarts != 2 || info.Daemon.AdoptedVms != 1 ||
		info.Memory.CommittedBytes != 5 || info.Memory.AdmissibleBytes != 7 || info.Memory.TotalBytes == 0 || info.UptimeSeconds <= 0 ||
		info.CryptoProvider != "quac100" || info.DataVolume.FreeBytes == 0 || info.DataVolume.Message != "" || info.IOMMU.Groups == nil {
		t.Errorf("%+v, %v", info, err)
	}
	c, err := s.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	available := make(map[string]bool)
	for _, f := range c.Features {
		available[f.Name] = f.Available
	}
	if !available["kvm"] || !available["iommu"] || !available["quac100"] || available["disk:qcow2"] {
		t.Errorf("%v", available)
	}
	if hosts, addrs := s.Names(); hosts[0] != "node7" || addrs[0].String() != "192.0.2.7" {
		t.Errorf("%v %v", hosts, addrs)
	}
}

func TestInfoOfANodeWithNothing(t *testing.T) {
	problem := func(c qverr.Code) *initapi.Problem { return initapi.NewProblem(qverr.New(c, "missing")) }
	init := &fakeInit{boot: initapi.Boot{
		Steps: []initapi.Step{{Name: "kvm", Problem: problem(qverr.NoVMX)}, {Name: "clock", Problem: problem(qverr.Timeout)}},
		KVM:   initapi.KVM{Problem: problem(qverr.NoVMX)}, IOMMU: initapi.IOMMU{Problem: problem(qverr.NoIOMMU)},
	}}
	dir := t.TempDir()
	s := testSystem(t, dir, init, cards{})
	info, err := s.Info(t.Context())
	if err != nil || info.DataVolume.Message == "" {
		t.Fatalf("%+v, %v", info, err)
	}
	got := names(info.Problems)
	for _, want := range []string{"QV_ERR_NOVMX", "QV_ERR_NOIOMMU", "QUAC100_ERR_NOT_FOUND", "QV_ERR_TIMEOUT"} {
		if got[want] != 1 {
			t.Errorf("%s stands %d times in %v", want, got[want], got)
		}
	}
	for _, p := range info.Problems {
		if p.Recovery == "" {
			t.Errorf("no recovery for %s", p.Name)
		}
	}
}

func TestNodeKeepsItsID(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	one, err := New(db, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	two, err := New(db, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil || one.nodeID != two.nodeID || len(one.nodeID) != 36 {
		t.Errorf("%q, %q, %v", one.nodeID, two.nodeID, err)
	}
}

func TestWithoutPID1(t *testing.T) {
	s := testSystem(t, t.TempDir(), nil, cards{})
	boot, err := s.LoadBoot(t.Context(), true)
	if err != nil || boot.BootID == "" || boot.Kernel == "" || (boot.KVM.Available == (boot.KVM.Problem != nil)) {
		t.Errorf("%+v, %v", boot, err)
	}
	if err := s.Reboot(t.Context()); !errors.Is(err, qverr.Unsupported) {
		t.Error(err)
	}
	if err := s.PowerOff(t.Context()); !errors.Is(err, qverr.Unsupported) {
		t.Error(err)
	}
}

func TestClock(t *testing.T) {
	var set time.Duration
	c := newClock(slog.New(slog.DiscardHandler))
	c.set = func(offset, _ time.Duration) error { set = offset; return nil }
	c.query = func(server string) (*ntp.Response, error) {
		switch server {
		case "good":
			now := time.Now()
			return &ntp.Response{ClockOffset: 90 * time.Second, Stratum: 2, Time: now, ReferenceTime: now.Add(-time.Second), Leap: ntp.LeapNoWarning}, nil
		case "insane":
			return &ntp.Response{Stratum: 0}, nil
		}
		return nil, errors.New("no route")
	}
	if err := c.sync([]string{"bad", "insane"}); !errors.Is(err, qverr.Timeout) {
		t.Errorf("got %v", err)
	}
	if c.Status().Synchronised {
		t.Error("synchronised by nobody")
	}
	if err := c.sync([]string{"bad", "insane", "good"}); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); !st.Synchronised || st.Server != "good" || st.OffsetMs != 90000 || st.LastSync == nil || set != 90*time.Second {
		t.Errorf("%+v, set %s", st, set)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { c.run(ctx, []string{"bad"}); close(done) }()
	cancel()
	<-done
	c.run(t.Context(), nil)
}

// What is wrong with the configuration is a problem of the node, and its host
// name that of the node.
func TestConfigurationIsShown(t *testing.T) {
	s := testSystem(t, t.TempDir(), &fakeInit{}, cards{})
	s.Configuration = func() spec.ConfigurationInfo {
		return spec.ConfigurationInfo{Problems: []spec.Problem{*initapi.NewProblem(qverr.New(qverr.Config, "hostnam is not a known key"))}}
	}
	s.Name = func() string { return "node7" }
	info, err := s.Info(t.Context())
	if err != nil || names(info.Problems)["QV_ERR_CONFIG"] != 1 || info.Hostname != "node7" {
		t.Errorf("%v %+v", err, info)
	}
}

// What the node stands on is said of its disks.
func TestDisksInUse(t *testing.T) {
	d := disks.Disk{Device: "/dev/vda", Partitions: []disks.DiskPartition{{Device: "/dev/vda2"}}}
	for device, want := range map[string]bool{"/dev/vda": true, "/dev/vda2": true, "/dev/vda1": false, "/dev/vdb": false, "": false, "/var/lib": false} {
		if has(&d, device) != want {
			t.Errorf("%q: %v", device, !want)
		}
	}
}

func TestVulnerabilities(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "meltdown"), []byte("Mitigation: PTI\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := vulnerabilities(dir); len(got) != 1 || got["meltdown"] != "Mitigation: PTI" {
		t.Errorf("%v", got)
	}
	if got := vulnerabilities(filepath.Join(dir, "none")); got == nil || len(got) != 0 {
		t.Errorf("%v", got)
	}
}
