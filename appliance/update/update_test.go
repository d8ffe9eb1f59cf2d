package update

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/bundle"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// everywhere runs a test on disks for UEFI, for BIOS, and for both booted
// either way.
func everywhere(t *testing.T, test func(t *testing.T, n *node)) {
	for name, c := range map[string]struct {
		firmware Firmware
		both     bool
	}{"UEFI": {UEFI, false}, "BIOS": {BIOS, false}, "UEFI of both": {UEFI, true}, "BIOS of both": {BIOS, true}} {
		t.Run(name, func(t *testing.T) { test(t, newNode(t, c.firmware, c.both)) })
	}
}

func TestUpdateIsTriedAndBlessed(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		n.vms["web"], n.vms["idle"] = spec.VMStateRUNNING, spec.VMStateSTOPPED
		n.must("2.0", quick)
		if !n.did("reboot") {
			t.Fatal("no reboot")
		}
		if s := n.find("2.0"); s.State != spec.SlotStateTry || !s.Next || s.Running || *s.TriesLeft != 1 {
			t.Errorf("armed: %+v", s)
		}
		n.boot()
		if n.version != "2.0" {
			t.Fatalf("%s was booted", n.version)
		}
		n.settle()
		if !n.did("blessed") || n.did("reboot") {
			t.Fatalf("PID 1 was asked %v; %s", n.asked, n.log)
		}
		if s := n.find("2.0"); s.State != spec.SlotStateGood || !s.Running || !s.Next || s.TriesLeft != nil {
			t.Errorf("blessed: %+v", s)
		}
		if n.vms["web"] != spec.VMStateRUNNING || n.vms["idle"] == spec.VMStateRUNNING {
			t.Errorf("VMs: %v", n.vms)
		}
		n.boot()
		n.settle()
		if n.version != "2.0" || n.vms["web"] == spec.VMStateRUNNING {
			t.Errorf("the next boot: %s, VMs %v", n.version, n.vms)
		}
		// The other loader of the disk has learnt of it.
		if d, err := readDisk(n.esp, n.firmware); err != nil || d.onUEFI() && d.bootsUEFI() != 2 || d.onBIOS() && d.bootsBIOS() != 2 {
			t.Errorf("UEFI boots %d, BIOS %d, %v", d.bootsUEFI(), d.bootsBIOS(), err)
		}
	})
}

// What is missing keeps the system from being blessed.
func TestFailedTrials(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(n *node)
		reason string
	}{
		"API":         {func(n *node) { n.ready = errors.New("silence") }, "silence"},
		"uplink":      {func(n *node) { n.up = spec.UplinkInfoStateDown }, "uplink is down"},
		"data volume": {func(n *node) { n.data = false }, "data volume data is not mounted"},
		"VM":          {func(n *node) { n.broken["web"] = true }, "VM web does not run"},
		"card":        {func(n *node) { n.cards = nil }, "card 0000:00:08.0"},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, n *node) {
				n.settle()
				n.vms["web"] = spec.VMStateRUNNING
				n.cards = []spec.Card{{Address: "0000:00:08.0", Healthy: true}}
				n.must("2.0", quick)
				c.spoil(n)
				n.boot()
				n.settle()
				if !n.did("reboot") || n.did("blessed") {
					t.Fatalf("PID 1 was asked %v", n.asked)
				}
				n.ready, n.up, n.data, n.cards, n.broken = nil, spec.UplinkInfoStateUp, true, []spec.Card{{Address: "0000:00:08.0", Healthy: true}}, map[string]bool{}
				n.boot()
				n.settle()
				if n.version != "1.0" || !n.did("blessed") {
					t.Fatalf("%s runs, PID 1 was asked %v", n.version, n.asked)
				}
				if s := n.find("2.0"); s.State != spec.SlotStateFailed || !strings.Contains(s.Reason, c.reason) {
					t.Errorf("slot: %+v", s)
				}
				if !strings.Contains(n.log.String(), c.reason) {
					t.Errorf("the log does not say why: %s", n.log)
				}
				if n.vms["web"] != spec.VMStateRUNNING {
					t.Errorf("VMs: %v", n.vms)
				}
				n.refused("2.0", c.reason)
			})
		})
	}
}

// refused wants a version to be refused for a reason, and taken when forced.
func (n *node) refused(version, reason string) {
	n.t.Helper()
	if err := n.update(pack(n.t, version, nil), quick); qverr.CodeOf(err) != qverr.State || !strings.Contains(err.Error(), reason) {
		n.t.Errorf("a version that failed: %v", err)
	}
	forced := quick
	forced.Force = true
	if err := n.update(pack(n.t, version, nil), forced); err != nil {
		n.t.Errorf("forced: %v", err)
	}
	n.boot()
	n.settle()
	if n.version != version || n.find(version).State != spec.SlotStateGood {
		n.t.Errorf("forced: %s runs, %+v", n.version, n.find(version))
	}
	if l := n.slots(); len(l.Failures) != 0 {
		n.t.Errorf("it is blessed and still remembered: %+v", l.Failures)
	}
}

// A system that says nothing: it hangs, panics or is reset before its daemon
// has come to a decision.
func TestSilentFailure(t *testing.T) {
	for name, c := range map[string]struct {
		words, note string // of its kernel, and of PID 1
		dog         bool   // the hardware watchdog reset the machine
		reason      string
	}{
		"reset":    {reason: hung},
		"panic":    {words: "Kernel panic - not syncing: no init", reason: panicked},
		"watchdog": {dog: true, reason: dogBit},
		"note":     {note: "the daemon has ended 5 times", words: "Kernel panic on the way down", dog: true, reason: "the daemon has ended 5 times"},
	} {
		words, reason := c.words, c.reason
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, n *node) {
				n.settle()
				n.vms["web"] = spec.VMStateRUNNING
				n.must("2.0", quick)
				n.boot() // and no daemon
				if n.version != "2.0" {
					t.Fatalf("%s was booted", n.version)
				}
				if c.note != "" {
					create(t, n.esp, inFolder(2, slot.NoteFile), c.note+"\n")
				}
				n.dog = c.dog
				if words != "" {
					if err := os.MkdirAll(filepath.Join(n.dir, "pstore"), 0o755); err != nil {
						t.Fatal(err)
					}
					n.file("pstore/dmesg-efi_pstore-170000000001001", "Panic#1 Part1\n"+words+"\n")
					n.file("pstore/dmesg-efi_pstore-170000000002001", "Panic#1 Part2\nbefore that\n")
				}
				n.boot()
				n.settle()
				if n.version != "1.0" {
					t.Fatalf("%s was booted", n.version)
				}
				s := n.find("2.0")
				if s.State != spec.SlotStateFailed || !strings.Contains(s.Reason, reason) {
					t.Errorf("%+v", s)
				}
				if words != "" && s.Panic != "before that\n"+words+"\n" {
					t.Errorf("last words: %q", s.Panic)
				}
				if left, _ := filepath.Glob(filepath.Join(n.dir, "pstore", "*")); len(left) != 0 {
					t.Errorf("the firmware's memory keeps %v", left)
				}
				if n.vms["web"] != spec.VMStateRUNNING {
					t.Errorf("VMs: %v", n.vms)
				}
				n.refused("2.0", reason)
			})
		})
	}
}

// A daemon that dies again and again during the trial does not extend it, and
// one that comes back after the decision does not turn it.
func TestDaemonRestartsOnTrial(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		n.must("2.0", quick)
		n.up = spec.UplinkInfoStateDown
		n.boot()
		n.settle()
		n.up = spec.UplinkInfoStateUp
		// PID 1 has not rebooted yet, and the daemon is started again.
		n.stop()
		n.rebooted, n.asked = make(chan struct{}), nil
		n.serve(filepath.Join(n.dir, "data"))
		n.settle()
		if n.did("blessed") || !n.did("reboot") {
			t.Errorf("PID 1 was asked %v", n.asked)
		}
		n.boot()
		n.settle()
		if n.version != "1.0" || n.find("2.0").State != spec.SlotStateFailed {
			t.Errorf("%s runs, %+v", n.version, n.find("2.0"))
		}
	})
}

// The power goes while a system is blessed, and of its image nothing but the new name
// is on the disk: the slot before boots, and another update is installed.
func TestLostImage(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		if n.firmware == BIOS {
			t.Skip("GRUB reads no such names")
		}
		n.settle()
		n.must("2.0", quick)
		n.boot() // and no daemon
		for name := range n.esp.files {
			if strings.HasPrefix(name, slot.UKIFolder+"/qv-00000002") {
				delete(n.esp.files, name)
			}
		}
		n.esp.files[uki(slot.Name{Sequence: 2})] = nil
		n.boot()
		n.settle()
		if s := n.find("2.0"); n.version != "1.0" || s.State != spec.SlotStateFailed || s.Reason != lost || s.Next {
			t.Errorf("%s runs, %+v", n.version, s)
		}
		n.refused("2.0", lost)
		n.must("3.0", quick)
		n.boot()
		n.settle()
		if s := n.find("3.0"); n.version != "3.0" || s.State != spec.SlotStateGood || !s.Next {
			t.Errorf("%s runs, %+v", n.version, s)
		}
	})
}

// A daemon that cannot start: the rescue listener in its place gives the system up
// at once, and nothing else.
func TestDaemonCannotStart(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		n.dead = "the daemon has ended 5 times"
		n.boot()
		n.settle()
		if n.did("reboot") || n.version != "1.0" || n.find("1.0").State != spec.SlotStateGood {
			t.Fatalf("a blessed system was given up: %+v", n.slots())
		}
		n.dead = ""
		n.boot()
		n.settle()
		n.must("2.0", Options{Good: time.Minute, Limit: time.Hour})
		n.dead = "the daemon has ended 5 times"
		n.boot()
		n.settle()
		if n.version != "2.0" || !n.did("reboot") || n.did("blessed") {
			t.Fatalf("%s runs, PID 1 was asked %v", n.version, n.asked)
		}
		n.dead = ""
		n.boot()
		n.settle()
		if s := n.find("2.0"); n.version != "1.0" || s.State != spec.SlotStateFailed || s.Reason != "the daemon has ended 5 times" {
			t.Errorf("%s runs, %+v", n.version, s)
		}
		n.refused("2.0", "ended 5 times")
	})
}

// Two slots on a disk that has room for no more, again and again: the running
// and the blessed one never go.
func TestManyUpdates(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		one := n.esp.size
		if free, err := n.esp.Free(); err == nil {
			one -= free
		}
		n.esp.size = 2*one + margin + one/2
		n.settle()
		for i := range 20 {
			version := fmt.Sprintf("2.%02d", i) // systems of one size
			n.must(version, quick)
			n.boot()
			n.settle()
			if n.version != version || n.find(version).State != spec.SlotStateGood {
				t.Fatalf("update %d: %s runs; %+v", i, n.version, n.slots().Items)
			}
		}
		if items := n.slots().Items; len(items) != 2 {
			t.Errorf("%d slots", len(items))
		}
	})
}

func TestRollBack(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		if _, err := n.svc.RollBack(t.Context()); qverr.CodeOf(err) != qverr.NoEnt {
			t.Errorf("nothing to roll back to: %v", err)
		}
		n.must("2.0", quick)
		n.boot()
		n.settle()
		n.vms["web"] = spec.VMStateRUNNING
		if _, err := n.svc.RollBack(t.Context()); err != nil || !n.did("reboot") {
			t.Fatalf("%v, PID 1 was asked %v", err, n.asked)
		}
		for range 2 {
			n.boot()
			n.settle()
			if n.version != "1.0" {
				t.Fatalf("%s runs", n.version)
			}
			if s := n.find("2.0"); s.State != spec.SlotStateFailed || !strings.Contains(s.Reason, "by hand") {
				t.Errorf("%+v", s)
			}
		}
		if len(n.slots().Failures) != 0 {
			t.Error("a system that was rolled back by hand did not fail")
		}
		n.must("2.0", quick) // and is not refused
		n.boot()
		n.settle()
		if n.version != "2.0" {
			t.Errorf("%s runs", n.version)
		}
	})
}

// An update that waits for a reboot is replaced by the next one.
func TestArmedTwice(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		o := quick
		o.NoReboot = true
		n.must("2.0", o)
		if n.did("reboot") {
			t.Error("it reboots")
		}
		n.must("3.0", o)
		n.boot()
		if n.version != "3.0" {
			t.Errorf("%s is tried", n.version)
		}
		n.boot() // it hung
		n.settle()
		if n.version != "1.0" {
			t.Errorf("then %s runs", n.version)
		}
	})
}

func TestOneAtATime(t *testing.T) {
	n := newNode(t, UEFI, false)
	n.settle()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { _, err := n.svc.Upload(n.t.Context(), "req", r, quick); done <- err }()
	good := pack(t, "2.0", nil)
	if _, err := w.Write(good[:100]); err != nil {
		t.Fatal(err)
	}
	if err := n.update(good, quick); qverr.CodeOf(err) != qverr.Busy {
		t.Errorf("a second one: %v", err)
	}
	cut := errors.New("the client is gone")
	w.CloseWithError(cut)
	if err := <-done; !errors.Is(err, cut) || qverr.CodeOf(err) != qverr.IO {
		t.Errorf("the first: %v", err)
	}
	n.must("2.0", quick)
	// On trial nothing is installed.
	n.boot()
	n.svc.boot = n.bootOf()
	close(n.svc.known)
	if err := n.update(pack(t, "3.0", nil), quick); qverr.CodeOf(err) != qverr.State {
		t.Errorf("on trial: %v", err)
	}
}

func TestKeyRotation(t *testing.T) {
	n := newNode(t, UEFI, false)
	n.settle()
	n.systems[sum(system("2.0"))] = "2.0"
	change := func(m *bundle.Manifest) {
		m.Keys = bundle.KeyChange{Add: [][]byte{public(key(2))}, Remove: []string{keyID(key(1))}}
	}
	if err := n.update(pack(t, "2.0", change), quick); err != nil {
		t.Fatal(err)
	}
	if err := n.update(pack(t, "3.0", nil, key(2)), Options{Check: true}); qverr.CodeOf(err) != qverr.PQCVerify {
		t.Errorf("the new key before the blessing: %v", err)
	}
	n.boot()
	n.settle()
	if err := n.update(pack(t, "3.0", nil, key(2)), Options{Check: true}); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if err := n.update(pack(t, "3.0", nil, key(1)), Options{Check: true}); qverr.CodeOf(err) != qverr.PQCVerify {
		t.Errorf("the old key: %v", err)
	}
}

func TestCounterGoesUpOnBlessing(t *testing.T) {
	n := newNode(t, UEFI, false)
	n.settle()
	n.systems[sum(system("2.0"))] = "2.0"
	if err := n.update(pack(t, "2.0", func(m *bundle.Manifest) { m.Counter = 9 }), quick); err != nil {
		t.Fatal(err)
	}
	if err := n.update(pack(t, "1.9", nil), Options{Check: true}); err != nil {
		t.Errorf("before the blessing: %v", err)
	}
	n.boot()
	n.settle()
	if err := n.update(pack(t, "1.9", nil), Options{Check: true}); qverr.CodeOf(err) != qverr.Version {
		t.Errorf("after it: %v", err)
	}
	// The slot knows, too.
	if err := n.svc.change(func(r *record) { r.Counter = 0 }); err != nil {
		t.Fatal(err)
	}
	if err := n.update(pack(t, "1.9", nil), Options{Check: true}); qverr.CodeOf(err) != qverr.Version {
		t.Errorf("with a store that is new: %v", err)
	}
}

func TestDownload(t *testing.T) {
	n := newNode(t, UEFI, false)
	n.settle()
	n.systems[sum(system("2.0"))] = "2.0"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x.qvu" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(pack(t, "2.0", nil))
	}))
	defer server.Close()
	for url, want := range map[string]qverr.Code{
		server.URL + "/other": qverr.NoEnt, "ftp://x/y": qverr.Inval, "": qverr.Inval, "http://127.0.0.1:1/x": qverr.IO, server.URL + "/x.qvu": 0,
	} {
		task, err := n.svc.Download(n.t.Context(), "req", url, quick)
		if err == nil {
			if task, err = n.tasks.Wait(t.Context(), task.ID); err == nil && task.State != spec.TaskStateSucceeded {
				err = task.Error.Err()
			}
		}
		if qverr.CodeOf(err) != want && !(want == qverr.IO && err != nil) {
			t.Errorf("%q: %v", url, err)
		}
	}
	n.boot()
	if n.version != "2.0" {
		t.Errorf("%s is tried", n.version)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Good: -1}, {Good: time.Hour, Limit: time.Minute}, {Limit: 2 * time.Hour}, {Good: time.Minute, Limit: time.Minute}} {
		if _, err := o.complete(); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if o, err := (Options{}).complete(); err != nil || o.Good != usualGood || o.Limit != usualLimit {
		t.Errorf("%+v %v", o, err)
	}
}

// Slots that run or are blessed never go, whatever room is needed.
func TestKeptSlots(t *testing.T) {
	for _, firmware := range []Firmware{UEFI, BIOS} {
		n := newNode(t, firmware, true)
		n.settle()
		n.must("2.0", quick)
		n.boot()
		n.settle()
		if _, err := n.svc.RollBack(t.Context()); err != nil { // 2 runs, 1 is blessed
			t.Fatal(err)
		}
		d, err := readDisk(n.esp, firmware)
		if err != nil {
			t.Fatal(err)
		}
		if spare := d.spare(2); len(spare) != 0 {
			t.Errorf("slots %v may go", spare)
		}
		if err := d.makeRoom(2, n.esp.size); qverr.CodeOf(err) != qverr.NoSpc {
			t.Errorf("got %v", err)
		}
		if spare := d.spare(1); !slices.Equal(spare, []uint32{2}) {
			t.Errorf("once 1 runs, %v may go", spare)
		}
	}
}
