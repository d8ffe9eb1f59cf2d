package vmm

import (
	"errors"
	"testing"

	"quantavirt/internal/qverr"
)

// TestTransitions holds the table against this one, row by row; "" means refused
// with QV_ERR_STATE.
func TestTransitions(t *testing.T) {
	actions := []Action{ActionPause, ActionResume, ActionReset, ActionPowerButton, ActionQuit, ActionStarted, ActionGuestReset, ActionGuestEnd}
	const s, r, p, e = StateStarting, StateRunning, StatePaused, StateEnding
	for state, want := range map[State][]State{
		//  pause resume reset button quit started guest-reset guest-end
		s: {"", "", "", "", e, r, "", e},
		r: {p, "", r, r, e, "", r, e},
		p: {"", r, p, "", e, "", p, e},
		e: {"", "", "", "", e, "", "", e},
	} {
		if len(transitions[state]) != len(actions) {
			t.Errorf("%s has %d rows", state, len(transitions[state]))
		}
		for i, a := range actions {
			next, err := Next(state, a)
			switch {
			case want[i] == "" && (!errors.Is(err, qverr.State) || next != state):
				t.Errorf("%s in %s: %s, %v", a, state, next, err)
			case want[i] != "" && (err != nil || next != want[i]):
				t.Errorf("%s in %s: %s, %v; want %s", a, state, next, err, want[i])
			}
		}
	}
	if len(transitions) != 4 {
		t.Errorf("%d states", len(transitions))
	}
	for _, bad := range []struct {
		s State
		a Action
	}{{"", ActionPause}, {StateRunning, "explode"}} {
		if _, err := Next(bad.s, bad.a); !errors.Is(err, qverr.State) {
			t.Errorf("%q in %q: %v", bad.a, bad.s, err)
		}
	}
}

func TestReport(t *testing.T) {
	crash := ExitReport{Status: ExitTripleFault, Reason: ReasonTripleFault, Code: qverr.TripleFault, Message: "vCPU 0 at 0x1234", Resets: 3}
	for _, tc := range []struct {
		name           string
		status, signal int
		words          ExitReport
		reason         Reason
		code           qverr.Code
		message        string
		crashed        bool
	}{
		{"guest off", ExitGuestOff, 0, ExitReport{}, ReasonGuestOff, 0, "the guest powered off", false},
		{"quit", ExitQuit, 0, ExitReport{}, ReasonQuit, 0, "ended on request", false},
		{"words agree", ExitTripleFault, 0, crash, ReasonTripleFault, qverr.TripleFault, "vCPU 0 at 0x1234", true},
		{"no words", ExitTripleFault, 0, ExitReport{}, ReasonTripleFault, qverr.TripleFault, "the guest's CPU shut down after a triple fault", true},
		{"killed after its words", -1, 9, crash, ReasonDied, qverr.Generic, "the VM process was ended by signal 9 (killed)", true},
		{"forbidden call", -1, 31, ExitReport{}, ReasonDied, qverr.Perm, "the VM process was ended by the kernel: it made a system call that its jail forbids", true},
		{"panic", 2, 0, ExitReport{}, ReasonDied, qverr.Generic, "the VM process died with status 2", true},
		{"panic after words", 2, 0, crash, ReasonDied, qverr.Generic, "the VM process died with status 2", true},
		{"internal", ExitInternal, 0, ExitReport{}, ReasonInternal, qverr.Generic, "the VM process failed", true},
		{"start", ExitStart, 0, ExitReport{}, ReasonStart, qverr.VMStart, "the machine could not be started", true},
		{"unknown", -1, 0, ExitReport{}, ReasonDied, qverr.Generic, "the VM process ended; how is not known", true},
	} {
		r := Report(tc.status, tc.signal, tc.words)
		if r.Reason != tc.reason || r.Code != tc.code || r.Message != tc.message || r.Reason.Crashed() != tc.crashed || r.Time.IsZero() {
			t.Errorf("%s: %+v", tc.name, r)
		}
		if r.Resets != tc.words.Resets {
			t.Errorf("%s: resets %d", tc.name, r.Resets)
		}
	}
}
