package qemutests

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
)

// failure is a system that cannot pass its trial.
type failure struct {
	name string
	release
	window
	in     map[string]bool // firmwares that make test tries it by; soak takes both
	joint  bool            // of cases that soak takes one by one
	crash  crash           // in the daemon's place
	during func(t *testing.T, m *machine)
	reason string // in the slot and the log
	panic  string // last words of its kernel; without UEFI nothing keeps them, and the reason is silent
	dog    bool   // the hardware watchdog resets it
}

var (
	patient = window{200, 240} // the system on trial is not blessed while the test does something to it
	hasty   = window{1, 12}    // it is given up soon
	onUEFI  = map[string]bool{lab.FirmwareUEFI: true}
	onBIOS  = map[string]bool{lab.FirmwareBIOS: true}
)

// silent is the reason of a system that left no word.
const silent = "reset or hung before it was blessed"

// failing is the matrix.
func failing() []failure {
	return []failure{
		{name: "panic", release: release{version: "9.20", words: "quantavirt.rescue"}, window: patient, in: onUEFI, during: panics,
			reason: "panicked", panic: "Kernel panic - not syncing: sysrq triggered crash"},
		{name: "panic before init", release: release{version: "9.21", words: "rdinit=/nonexistent"}, window: short, reason: silent},
		{name: "hang", release: release{version: "9.22", words: "quantavirt.rescue quantavirt.watchdog=10"}, window: patient, in: onUEFI, during: hangs,
			reason: "the hardware watchdog reset the node", dog: true},
		{name: "daemon crashes", release: release{version: "9.23"}, crash: daemonCrashes, window: patient, in: onBIOS,
			reason: "the daemon has ended 5 times without having been ready for 10s, last with status 2; its last words: panic: assignment to entry in nil map"},
		{name: "daemon and listener crash", release: release{version: "9.24"}, crash: allCrashes, window: patient,
			reason: "panic: assignment to entry in nil map; the rescue listener does not live either"},
		{name: "uplink", release: release{version: "9.25", words: "module_blacklist=virtio_net"}, window: hasty, reason: "the uplink is down"},
		{name: "data volume", release: release{version: "9.26", words: "module_blacklist=virtio_blk"}, window: hasty, reason: "is not mounted"},
		{name: "data volume and uplink", release: release{version: "9.27", words: "module_blacklist=virtio_blk,virtio_net"}, window: hasty, in: onBIOS, joint: true,
			reason: "is not mounted; the uplink is down"},
	}
}

// panics has the node's kernel panic.
func panics(t *testing.T, m *machine) {
	t.Helper()
	m.dies(t, "echo c > /proc/sysrq-trigger")
}

// hangs stops all threads of PID 1, which then does nothing any more.
func hangs(t *testing.T, m *machine) {
	t.Helper()
	m.dies(t, "mkdir /sys/fs/cgroup/hang; echo 1 > /sys/fs/cgroup/hang/cgroup.procs; echo 1 > /sys/fs/cgroup/hang/cgroup.freeze; sleep 60")
}

// dies runs a command in the node's shell that the node does not survive.
func (m *machine) dies(t *testing.T, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if out, err := m.Shell(ctx, command); err == nil {
		t.Fatalf("the node survived: %s", out)
	}
}

// fails updates the node to a system that cannot pass: after two boots the first
// system runs, with its VM, and says why.
func (m *machine) fails(t *testing.T, f failure) {
	if f.version == "9.26" && m.oneDisk { // the disk of the system cannot be missing
		f.words = "quantavirt.data=PARTUUID=00000000-0000-0000-0000-000000000001"
	}
	f.counter = 2
	if f.crash != nothingCrashes {
		f.files = f.crash.files(t)
	}
	if m.firmware == lab.FirmwareBIOS && f.panic != "" {
		f.reason, f.panic = silent, ""
	}
	bundle := f.bundle(t)
	events, err := m.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	vm := getVM(t, m.Node, "kept").State
	mark := m.sendUpdate(t, bundle, f.window)
	begin := time.Now()
	if f.during != nil {
		again(t, m.Node, mark)
		slotState(t, m.Node, f.version, spec.SlotStateTry)
		f.during(t, m)
	}
	s := slotState(t, m.Node, f.version, spec.SlotStateFailed)
	for s.Running { // it has given itself up and has not rebooted yet
		<-time.After(500 * time.Millisecond)
		s = slotState(t, m.Node, f.version, spec.SlotStateFailed)
	}
	t.Logf("%.1f s after the reboot: %s", time.Since(begin).Seconds(), s.Reason)
	if s.Running || s.Next || !strings.Contains(s.Reason, f.reason) {
		t.Errorf("the system that failed: %+v; want %q", s, f.reason)
	}
	if !strings.Contains(s.Panic, f.panic) {
		t.Errorf("last words %q, want %q", s.Panic, f.panic)
	}
	m.runs(t, m.first, vm)
	if n := m.boots(events); n != 2 {
		t.Errorf("%d boots, want 2", n)
	}
	if n := events.Count("WATCHDOG"); n > 0 != f.dog {
		t.Errorf("the watchdog bit %d times", n)
	}
	if !m.logSays(t, f.reason) {
		t.Errorf("the log does not say %q", f.reason)
	}
	m.refuses(t, bundle, "QV_ERR_STATE")
	if vm == "RUNNING" && !soaking() { // it has been shown that it runs again; without it, boots are shorter
		if err := m.Call(t.Context(), http.MethodPost, "/api/v1/vms/kept/stop?wait=60", map[string]any{"force": true}, nil); err != nil {
			t.Fatal(err)
		}
		waitState(t, m.Node, "kept", "STOPPED", time.Minute)
	}
}

// boots counts those since events were. SeaBIOS, when it is not started for the first
// time, resets the machine once more (its src/resume.c, "Attempting a hard reboot").
func (m *machine) boots(events *lab.Events) int {
	resets := events.Count("RESET")
	if m.firmware == lab.FirmwareBIOS {
		return (resets + 1) / 2
	}
	return resets
}

// logSays looks for a text in the node's log.
func (m *machine) logSays(t *testing.T, text string) bool {
	t.Helper()
	a, err := m.Do(t.Context(), http.MethodGet, "/api/v1/logs?level=error&grep="+url.QueryEscape(regexp.QuoteMeta(text)), nil)
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s %v", a.Status, a.Body, err)
	}
	return strings.Contains(string(a.Body), text)
}
