package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

func TestLife(t *testing.T) {
	r := newRig(t)
	v := r.create(with(`,"storage":[{"disk":"d","serial":"S1"}],"network":[{}],"cpu":{"count":2,"shares":200,"limit":1.5}`))
	if v.State != spec.VMStateCREATED || v.CID != 3 {
		t.Fatalf("%+v", v)
	}
	r.start("web")
	v, _ = r.Get("web")
	if v.State != spec.VMStateRUNNING || v.Pid == 0 || v.Nics[0].Tap == "" || v.StartedAt == nil {
		t.Fatalf("%+v", v)
	}
	s := r.vmm.specs[0]
	if m := s.Machine; m.CPUs != 2 || m.Memory != 128<<20 || len(m.Disks) != 1 || m.Disks[0].Serial != "S1" || len(m.NICs) != 1 ||
		m.NICs[0].MAC != v.Nics[0].MAC || m.NICs[0].MTU != 1500 || m.Validate() != nil {
		t.Errorf("machine %+v: %v", m, m.Validate())
	}
	for _, name := range s.Machine.Files() {
		if s.Files[name] == nil {
			t.Errorf("file %s is not passed", name)
		}
	}
	if s.UID == 0 || s.CPUWeight != 200 || s.CPULimit != 1.5 || s.MemoryMax <= 128<<20 {
		t.Errorf("spec %+v", s)
	}
	r.good(r.Pause("web", ""))
	r.state("web", spec.VMStatePAUSED)
	_, err := r.Stop("web", "", false, 0)
	wantCode(t, err, qverr.State)
	r.good(r.Reset("web", ""))
	r.state("web", spec.VMStatePAUSED)
	r.good(r.Resume("web", ""))
	r.good(r.Reset("web", ""))
	stats, err := r.Stats(t.Context(), "web")
	if err != nil || stats.Memory.GuestBytes != 128<<20 || stats.VMM.UptimeSeconds != 5 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	console, err := r.Console(t.Context(), "web", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = console.Close()
	_, err = r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.State)
	r.good(r.Stop("web", "", false, 0))
	v = r.state("web", spec.VMStateSTOPPED)
	if v.Pid != 0 || v.Reason != "the guest powered off" || len(r.net.ports) != 0 || r.Committed() != 0 {
		t.Errorf("after the stop: %+v, ports %v, committed %d", v, r.net.ports, r.Committed())
	}
	_, err = r.Console(t.Context(), "web", "")
	wantCode(t, err, qverr.State)
	_, err = r.Stats(t.Context(), "web")
	wantCode(t, err, qverr.State)
	r.good(r.Destroy("web", "", false))
	_, err = r.Get("web")
	wantCode(t, err, qverr.NoEnt)
	for _, left := range []string{"configs/web.json", "logs/consoles/web"} {
		if _, err := os.Stat(filepath.Join(r.dir, left)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"uuid":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","network":[{"mac":"02:00:00:00:00:01"}],"storage":[{"disk":"d"}]`))
	before := len(r.List())
	other := func(members string) string { return strings.Replace(with(members), `"web"`, `"other"`, 1) }
	for name, c := range map[string]struct {
		doc  string
		code qverr.Code
		path any
	}{
		"same name":      {with(""), qverr.Exist, nil},
		"same uuid":      {other(`,"uuid":"1b4e28ba-2fa1-41d2-883f-0016d3cca427"`), qverr.Exist, "uuid"},
		"same MAC":       {other(`,"network":[{"mac":"02:00:00:00:00:01"}]`), qverr.NetMAC, "network[0].mac"},
		"no such disk":   {other(`,"storage":[{"disk":"d"},{"disk":"none"}]`), qverr.NoEnt, "storage[1].disk"},
		"no such kernel": {strings.Replace(other(""), `"k"`, `"none"`, 1), qverr.NoEnt, "boot.kernel"},
		"wrong kind":     {strings.Replace(other(""), `"k"`, `"initrd"`, 1), qverr.Config, "boot.kernel"},
		"no such net":    {other(`,"network":[{"network":"lan"}]`), qverr.NoEnt, "network[0].network"},
		"MTU":            {other(`,"network":[{"mtu":9000}]`), qverr.NetMTU, "network[0].mtu"},
	} {
		_, err := r.Create(tree(t, c.doc), false)
		if !errors.Is(err, c.code) || qverr.From(err).Details["path"] != c.path {
			t.Errorf("%s: %v (path %v), want %d at %v", name, err, qverr.From(err).Details["path"], c.code, c.path)
		}
	}
	if len(r.List()) != before {
		t.Error("a refused VM was made")
	}
	if _, err := r.Create(tree(t, other("")), true); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if len(r.List()) != before {
		t.Error("a dry run made a VM")
	}

	_, err := r.Start(t.Context(), "nobody", "")
	wantCode(t, err, qverr.NoEnt)
	r.KVM = func(context.Context) error { return qverr.New(qverr.NoVMX, "no svm") }
	_, err = r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.NoVMX)
	r.KVM = func(context.Context) error { return nil }
	r.free = 200 << 20
	_, err = r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.NoMem)
	r.free = 4 << 30
	r.store.locked["d"] = true
	_, err = r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.StrLock)
	if v, _ := r.Get("web"); v.State != spec.VMStateCREATED || r.Committed() != 0 {
		t.Errorf("refused starts left %s, %d bytes", v.State, r.Committed())
	}
	if n := len(r.tasks.List(nil)); n != 0 {
		t.Errorf("refused starts made %d tasks", n)
	}
}

func TestLockNamesTheHolder(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"storage":[{"disk":"d"}]`))
	r.create(strings.Replace(with(`,"storage":[{"disk":"d"}]`), `"web"`, `"second"`, 1))
	r.start("web")
	r.store.locked["d"] = true
	_, err := r.Start(t.Context(), "second", "")
	wantCode(t, err, qverr.StrLock)
	if !strings.Contains(err.Error(), "locked by VM 'web'") {
		t.Errorf("%v", err)
	}
}

func TestAdmissionCountsWhatIsNotTakenYet(t *testing.T) {
	r := newRig(t)
	r.free = 96<<20 + headroom(8<<30) + 400<<20
	r.create(strings.Replace(with(""), `"128M"`, `"256M"`, 1))
	r.create(strings.Replace(with(""), `"web"`, `"second"`, 1))
	r.start("web")
	_, err := r.Start(t.Context(), "second", "")
	wantCode(t, err, qverr.NoMem)
	r.good(r.Stop("web", "", true, 0))
	r.start("second")
}

func TestFailedStart(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"network":[{}]`))
	r.vmm.fail = qverr.New(qverr.Hugepage, "no pages")
	got := r.done(r.Start(t.Context(), "web", "req-9"))
	if got.State != spec.TaskStateFailed || got.Error.Code != qverr.Hugepage || got.Error.RequestID != "req-9" {
		t.Errorf("task %+v", got)
	}
	v, _ := r.Get("web")
	if v.State != spec.VMStateCREATED || v.Error.Code != int32(qverr.Hugepage) || len(r.net.ports) != 0 || r.Committed() != 0 {
		t.Errorf("%+v, ports %v", v, r.net.ports)
	}
	r.vmm.fail = errors.New("something")
	if got := r.done(r.Start(t.Context(), "web", "")); got.Error.Code != qverr.VMStart {
		t.Errorf("an error without a code: %+v", got.Error)
	}
	r.start("web")
	if v, _ := r.Get("web"); v.Error.Code != 0 {
		t.Errorf("an old error stays: %+v", v.Error)
	}
}

func TestStopTimeoutAndForce(t *testing.T) {
	r := newRig(t)
	r.vmm.deaf = true
	r.create(with(""))
	r.start("web")
	got := r.done(r.Stop("web", "", false, 50*time.Millisecond))
	if got.Error.Code != qverr.Timeout {
		t.Fatalf("%+v", got)
	}
	r.state("web", spec.VMStateRUNNING)
	slow, err := r.Stop("web", "", false, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Pause("web", "")
	wantCode(t, err, qverr.Busy)
	_, err = r.Stop("web", "", false, 0)
	wantCode(t, err, qverr.Busy)
	r.good(r.Stop("web", "", true, 0))
	if got := r.done(slow, nil); got.State == spec.TaskStateSucceeded {
		t.Errorf("the interrupted stop %s", got.State)
	}
	if v := r.state("web", spec.VMStateSTOPPED); v.Reason != "ended on request" {
		t.Errorf("reason %q", v.Reason)
	}
}

func TestCancelStop(t *testing.T) {
	r := newRig(t)
	r.vmm.deaf = true
	r.create(with(""))
	r.start("web")
	slow, err := r.Stop("web", "", false, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.tasks.Cancel(slow.ID); err != nil {
		t.Fatal(err)
	}
	if got := r.done(slow, nil); got.State != spec.TaskStateCancelled {
		t.Errorf("state %s", got.State)
	}
	r.state("web", spec.VMStateRUNNING)
}

func TestForceDestroy(t *testing.T) {
	r := newRig(t)
	r.create(with(""))
	r.start("web")
	_, err := r.Destroy("web", "", false)
	wantCode(t, err, qverr.State)
	r.good(r.Destroy("web", "", true))
	_, err = r.Get("web")
	wantCode(t, err, qverr.NoEnt)
	r.create(with(""))
}

func TestEndsByThemselves(t *testing.T) {
	for _, c := range []struct {
		name           string
		status, signal int
		state          spec.VMState
		code           qverr.Code
	}{
		{"guest off", vmm.ExitGuestOff, 0, spec.VMStateSTOPPED, 0},
		{"quit", vmm.ExitQuit, 0, spec.VMStateSTOPPED, 0},
		{"triple fault", vmm.ExitTripleFault, 0, spec.VMStateCRASHED, qverr.TripleFault},
		{"internal", vmm.ExitInternal, 0, spec.VMStateCRASHED, qverr.Generic},
		{"killed", -1, 9, spec.VMStateCRASHED, qverr.Generic},
		{"unknown status", 77, 0, spec.VMStateCRASHED, qverr.Generic},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.create(with(`,"network":[{}]`))
			r.start("web")
			r.vmm.proc(t, "web").end(c.status, c.signal)
			v := r.state("web", c.state)
			if v.Error.Code != int32(c.code) || v.Reason == "" || v.Pid != 0 || len(r.net.ports) != 0 {
				t.Errorf("%+v, ports %v", v, r.net.ports)
			}
			r.checkCrash(v)
			r.start("web")
		})
	}
}

func TestRestartPolicy(t *testing.T) {
	for _, c := range []struct {
		policy string
		status int
		again  bool
	}{
		{"never", vmm.ExitTripleFault, false}, {"on-crash", vmm.ExitTripleFault, true}, {"on-crash", vmm.ExitGuestOff, false}, {"always", vmm.ExitGuestOff, true},
	} {
		if got := wantsRestart(spec.VMConfigRestart(c.policy), map[bool]Action{true: EvGuestOff, false: EvCrash}[c.status == vmm.ExitGuestOff]); got != c.again {
			t.Errorf("%s after status %d: %v", c.policy, c.status, got)
		}
	}
	r := newRig(t)
	r.create(with(`,"restart":"always"`))
	r.start("web")
	r.vmm.proc(t, "web").end(vmm.ExitTripleFault, 0)
	r.state("web", spec.VMStateCRASHED)
	if v := r.state("web", spec.VMStateRUNNING); v.Restarts != 1 {
		t.Errorf("restarts %d", v.Restarts)
	}
	r.good(r.Stop("web", "", true, 0))
	if v := r.state("web", spec.VMStateSTOPPED); v.Restarts != 1 {
		t.Errorf("restarts %d", v.Restarts)
	}
	if restartPause(0) != time.Second || restartPause(3) != 8*time.Second || restartPause(60) != time.Minute {
		t.Error("the pauses do not double up to a minute")
	}
}

func TestNewDaemonAdopts(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"runs", "paused", "ended", "killed", "rests"} {
		r.create(strings.Replace(with(""), `"web"`, `"`+name+`"`, 1))
		if name != "rests" {
			r.start(name)
		}
	}
	r.good(r.Pause("paused", ""))
	r.Service.Close() // no watcher sees what happens now
	killed, _ := r.Get("killed")
	r.exit = func(_ context.Context, pid int) (initapi.Exit, error) {
		if pid == killed.Pid {
			return initapi.Exit{PID: pid, Status: -1, Signal: 9}, nil
		}
		return initapi.Exit{PID: pid, Status: vmm.ExitGuestOff}, nil
	}
	r.vmm.proc(t, "ended").end(vmm.ExitGuestOff, 0)
	r.vmm.proc(t, "killed").end(-1, 9)
	r.reopen("boot-1")
	for name, want := range map[string]spec.VMState{
		"runs": spec.VMStateRUNNING, "paused": spec.VMStatePAUSED, "ended": spec.VMStateSTOPPED, "killed": spec.VMStateCRASHED, "rests": spec.VMStateCREATED,
	} {
		if v, _ := r.Get(name); v.State != want {
			t.Errorf("%s is %s (%s), want %s", name, v.State, v.Reason, want)
		}
	}
	if r.Adopted() != 2 || r.Committed() == 0 {
		t.Errorf("adopted %d, committed %d", r.Adopted(), r.Committed())
	}
	if v, _ := r.Get("killed"); !strings.Contains(v.Reason, "signal 9") {
		t.Errorf("reason %q", v.Reason)
	}
	r.good(r.Resume("paused", ""))
	r.good(r.Stop("runs", "", false, 0))
}

func TestRebootedNode(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"autostart":{"enabled":true,"order":2}`))
	r.create(strings.Replace(with(`,"autostart":{"enabled":true,"order":1}`), `"web"`, `"first"`, 1))
	r.create(strings.Replace(with(""), `"web"`, `"manual"`, 1))
	r.start("web")
	r.start("manual")
	r.close()
	r.vmm.procs = map[string]*fakeProc{} // the node is gone, and all with it
	r.vmm.specs = nil
	r.open("boot-2")
	if v, _ := r.Get("web"); v.State != spec.VMStateSTOPPED || v.Reason != "the node went down" {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
	r.Autostart(t.Context())
	var order []string
	for _, s := range r.vmm.specs {
		order = append(order, s.Name)
	}
	if !slices.Equal(order, []string{"first", "web"}) {
		t.Errorf("started %v", order)
	}
}

func TestShutdown(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"good", "paused"} {
		r.create(strings.Replace(with(`,"restart":"always"`), `"web"`, `"`+name+`"`, 1))
		r.start(name)
	}
	r.good(r.Pause("paused", ""))
	r.Shutdown(t.Context())
	for _, name := range []string{"good", "paused"} {
		if v, _ := r.Get(name); v.State != spec.VMStateSTOPPED || v.Reason != "the guest powered off" {
			t.Errorf("%s is %s: %s", name, v.State, v.Reason)
		}
	}
	_, err := r.Start(t.Context(), "good", "")
	wantCode(t, err, qverr.Again)
}

func TestShutdownEndsTheDeaf(t *testing.T) {
	r := newRig(t)
	r.create(with(""))
	r.start("web")
	r.vmm.deaf = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Shutdown(ctx)
	if v, _ := r.Get("web"); v.State != spec.VMStateSTOPPED || v.Reason != "ended on request" {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
}

func TestUpdate(t *testing.T) {
	r := newRig(t)
	made := r.create(with(`,"storage":[{"disk":"d"}]`))
	patch := func(doc string) (spec.VM, error) { return r.Update(t.Context(), "web", tree(t, doc).(map[string]any)) }
	v, err := patch(`{"memory":{"size":"256M"},"cpu":{"count":4},"description":"x","devices":{"network":[{}]}}`)
	if err != nil || v.Config.Memory.Size != 256<<20 || v.Config.CPU.Count != 4 || len(v.Nics) != 1 || v.UUID != made.UUID {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err = patch(`{"description":null,"storage":null}`); err != nil || v.Config.Description != "" || len(v.Config.Storage) != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	for doc, code := range map[string]qverr.Code{
		`{"name":"other"}`: qverr.Config, `{"uuid":"1b4e28ba-2fa1-41d2-883f-0016d3cca427"}`: qverr.Config, `{"memory":null}`: qverr.Config,
		`{"cpu":{"count":"two"}}`: qverr.Config, `{"storage":[{"disk":"none"}]}`: qverr.NoEnt, `{"colour":"red"}`: qverr.Config,
	} {
		if _, err := patch(doc); !errors.Is(err, code) {
			t.Errorf("%s: %v", doc, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(r.dir, "configs", "web.json"))
	if err != nil || !strings.Contains(string(data), `"256M"`) {
		t.Errorf("configs/web.json: %s, %v", data, err)
	}
	r.start("web")
	_, err = patch(`{"description":"y"}`)
	wantCode(t, err, qverr.State)
	r.reopen("boot-1")
	if v, _ := r.Get("web"); v.Config.CPU.Count != 4 {
		t.Errorf("the change is lost: %+v", v.Config)
	}
}

func TestDestroyedConfigsDisappear(t *testing.T) {
	r := newRig(t)
	r.create(with(""))
	for _, f := range []string{"ghost.json"} {
		if err := os.WriteFile(filepath.Join(r.dir, "configs", f), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(r.dir, "configs", "web.json")); err != nil {
		t.Fatal(err)
	}
	r.SyncConfigs()
	entries, _ := os.ReadDir(filepath.Join(r.dir, "configs"))
	if len(entries) != 1 || entries[0].Name() != "web.json" {
		t.Errorf("configs: %v", entries)
	}
}

// checkCrash holds the crash report against the VM's state.
func (r *rig) checkCrash(v spec.VM) {
	r.t.Helper()
	c, err := r.Crash(v.Name)
	if v.State != spec.VMStateCRASHED {
		wantCode(r.t, err, qverr.NoEnt)
		return
	}
	if err != nil || c.Message != v.Reason || int32(c.Code) != v.Error.Code || v.CrashedAt == nil || !c.Time.Equal(*v.CrashedAt) {
		r.t.Errorf("%+v, %v of %+v", c, err, v)
	}
}

func TestCrashReport(t *testing.T) {
	r := newRig(t)
	r.create(with(``))
	_, err := r.Crash("web")
	wantCode(t, err, qverr.NoEnt)
	_, err = r.Crash("none")
	wantCode(t, err, qverr.NoEnt)
	r.start("web")
	file, err := ring.Create(filepath.Join(r.consoleDir("web"), vmm.ConsoleSerial), ring.DefaultSize)
	if err != nil {
		t.Fatal(err)
	}
	console, err := ring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = console.Write([]byte(strings.Repeat("an early line\n", 1000) + "Kernel panic\n\xff\n"))
	console.Close()
	if err := os.WriteFile(filepath.Join(r.consoleDir("web"), processLog), []byte("the last line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vcpu := 0
	r.vmm.crash = &vmm.CrashReport{Message: "vCPU 0: triple fault", Code: qverr.TripleFault, Reason: vmm.ReasonTripleFault, VCPU: &vcpu,
		VCPUs: []vmm.VCPUCrash{{Registers: map[string]vmm.Hex{"rip": 0xfff0}, LastExits: []vmm.ExitRecord{{Reason: "shutdown"}}}}}
	r.vmm.proc(t, "web").end(vmm.ExitTripleFault, 0)
	r.state("web", spec.VMStateCRASHED)
	c, err := r.Crash("web")
	text := c.Console[vmm.ConsoleSerial]
	if err != nil || *c.VCPU != 0 || c.VCPUs[0].Registers["rip"] != 0xfff0 || c.Log != "the last line\n" || len(c.Console) != 1 ||
		len(text) > vmm.CrashConsole || !strings.HasPrefix(text, "an early line\n") || !strings.HasSuffix(text, "Kernel panic\n?\n") {
		t.Errorf("%+v, %v", c, err)
	}
	r.reopen("boot-1")
	if again, err := r.Crash("web"); err != nil || again.Message != c.Message {
		t.Errorf("after a restart of the daemon: %+v, %v", again, err)
	}
	s, err := func() (spec.VMStats, error) { r.start("web"); return r.Stats(t.Context(), "web") }()
	if err != nil || s.Memory.BeyondBytes != 4<<20 || len(s.CPU.StealUs) != 1 || s.CPU.StealUs[0] != 11 {
		t.Errorf("%+v, %v", s, err)
	}
}
