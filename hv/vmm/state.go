package vmm

import "quantavirt/internal/qverr"

// State is where a VM process is in its life.
type State string

// The states. A process that is gone has no state: its ExitReport says why.
const (
	// StateStarting lasts from the clone until the vCPUs run.
	StateStarting State = "starting"
	// StateRunning means that the vCPUs run.
	StateRunning State = "running"
	// StatePaused means that no vCPU runs and no device touches guest memory.
	StatePaused State = "paused"
	// StateEnding means that the guest is over and the process is about to end.
	StateEnding State = "ending"
)

// Action is something that can be asked of a VM process.
type Action string

// The actions. The last three are not asked by the operator: they happen.
const (
	ActionPause       Action = "pause"
	ActionResume      Action = "resume"
	ActionReset       Action = "reset"
	ActionPowerButton Action = "power-button"
	ActionQuit        Action = "quit"

	ActionStarted    Action = "started"     // the vCPUs run
	ActionGuestReset Action = "guest-reset" // the guest asked for a reset
	ActionGuestEnd   Action = "guest-end"   // power off, triple fault or a failure of the VMM
)

// outcome is what an action leads to: a state, or the code that refuses it.
type outcome struct {
	next State
	code qverr.Code
}

func to(s State) outcome          { return outcome{next: s} }
func refuse(c qverr.Code) outcome { return outcome{code: c} }
func (o outcome) err(a Action, s State) error {
	if o.code == qverr.Success {
		return nil
	}
	return qverr.New(o.code, "%s: the VM is %s", a, s).
		With("state", string(s)).With("action", string(a))
}

// transitions is the whole life of a VM process. A pair that is not in it is a
// programming error and refused with QV_ERR_STATE.
var transitions = map[State]map[Action]outcome{
	StateStarting: {
		ActionPause:       refuse(qverr.State),
		ActionResume:      refuse(qverr.State),
		ActionReset:       refuse(qverr.State),
		ActionPowerButton: refuse(qverr.State),
		ActionQuit:        to(StateEnding),
		ActionStarted:     to(StateRunning),
		ActionGuestReset:  refuse(qverr.State),
		ActionGuestEnd:    to(StateEnding),
	},
	StateRunning: {
		ActionPause:       to(StatePaused),
		ActionResume:      refuse(qverr.State),
		ActionReset:       to(StateRunning),
		ActionPowerButton: to(StateRunning),
		ActionQuit:        to(StateEnding),
		ActionStarted:     refuse(qverr.State),
		ActionGuestReset:  to(StateRunning),
		ActionGuestEnd:    to(StateEnding),
	},
	StatePaused: {
		ActionPause:       refuse(qverr.State),
		ActionResume:      to(StateRunning),
		ActionReset:       to(StatePaused),
		ActionPowerButton: refuse(qverr.State),
		ActionQuit:        to(StateEnding),
		ActionStarted:     refuse(qverr.State),
		// What the guest asked for on its last instruction before the pause.
		ActionGuestReset: to(StatePaused),
		ActionGuestEnd:   to(StateEnding),
	},
	StateEnding: {
		ActionPause:       refuse(qverr.State),
		ActionResume:      refuse(qverr.State),
		ActionReset:       refuse(qverr.State),
		ActionPowerButton: refuse(qverr.State),
		ActionQuit:        to(StateEnding),
		ActionStarted:     refuse(qverr.State),
		ActionGuestReset:  refuse(qverr.State),
		ActionGuestEnd:    to(StateEnding),
	},
}

// Next is the state that action a leads to from s, or an error with
// QV_ERR_STATE when a is not legal in s.
func Next(s State, a Action) (State, error) {
	o, ok := transitions[s][a]
	if !ok {
		o = refuse(qverr.State)
	}
	if err := o.err(a, s); err != nil {
		return s, err
	}
	return o.next, nil
}
