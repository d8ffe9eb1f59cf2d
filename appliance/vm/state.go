package vm

import (
	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// Action is what may be done to a VM, or happen to it.
type Action string

// Actions of operators.
const (
	ActStart        Action = "start"
	ActStop         Action = "stop"       // ACPI power button
	ActForceStop    Action = "force stop" // ends the process
	ActPause        Action = "pause"
	ActResume       Action = "resume"
	ActReset        Action = "reset"
	ActMigrate      Action = "migrate"
	ActUpdate       Action = "change the configuration of"
	ActDestroy      Action = "destroy"
	ActForceDestroy Action = "force destroy"
)

// What happens by itself, or ends what an operator began.
const (
	EvGuestOff  Action = "power-off by the guest"
	EvQuit      Action = "end on request"
	EvCrash     Action = "crash"
	EvMigrated  Action = "end of the migration"
	EvMigrateNo Action = "cancel or failure of the migration"
)

// outcome is the state that follows, or the code that refuses.
type outcome struct {
	next spec.VMState
	code qverr.Code
}

func to(s spec.VMState) outcome { return outcome{next: s} }

var no = outcome{code: qverr.State}

// resting is the row of a VM that has no process.
func resting(s spec.VMState) map[Action]outcome {
	return map[Action]outcome{
		ActStart:        to(spec.VMStateRUNNING),
		ActStop:         no,
		ActForceStop:    no,
		ActPause:        no,
		ActResume:       no,
		ActReset:        no,
		ActMigrate:      no,
		ActUpdate:       to(s),
		ActDestroy:      to(spec.VMStateDESTROYED),
		ActForceDestroy: to(spec.VMStateDESTROYED),
		EvGuestOff:      no,
		EvQuit:          no,
		EvCrash:         no,
		EvMigrated:      no,
		EvMigrateNo:     no,
	}
}

var transitions = map[spec.VMState]map[Action]outcome{
	spec.VMStateCREATED: resting(spec.VMStateCREATED),
	spec.VMStateSTOPPED: resting(spec.VMStateSTOPPED),
	spec.VMStateCRASHED: resting(spec.VMStateCRASHED),
	spec.VMStateRUNNING: {
		ActStart:        no,
		ActStop:         to(spec.VMStateSTOPPED),
		ActForceStop:    to(spec.VMStateSTOPPED),
		ActPause:        to(spec.VMStatePAUSED),
		ActResume:       no,
		ActReset:        to(spec.VMStateRUNNING),
		ActMigrate:      to(spec.VMStateMIGRATING),
		ActUpdate:       no,
		ActDestroy:      no,
		ActForceDestroy: to(spec.VMStateDESTROYED),
		EvGuestOff:      to(spec.VMStateSTOPPED),
		EvQuit:          to(spec.VMStateSTOPPED),
		EvCrash:         to(spec.VMStateCRASHED),
		EvMigrated:      no,
		EvMigrateNo:     no,
	},
	spec.VMStatePAUSED: {
		ActStart:        no,
		ActStop:         no,
		ActForceStop:    to(spec.VMStateSTOPPED),
		ActPause:        no,
		ActResume:       to(spec.VMStateRUNNING),
		ActReset:        to(spec.VMStatePAUSED),
		ActMigrate:      no,
		ActUpdate:       no,
		ActDestroy:      no,
		ActForceDestroy: to(spec.VMStateDESTROYED),
		EvGuestOff:      to(spec.VMStateSTOPPED),
		EvQuit:          to(spec.VMStateSTOPPED),
		EvCrash:         to(spec.VMStateCRASHED),
		EvMigrated:      no,
		EvMigrateNo:     no,
	},
	spec.VMStateMIGRATING: {
		ActStart:        no,
		ActStop:         no,
		ActForceStop:    no,
		ActPause:        no,
		ActResume:       no,
		ActReset:        no,
		ActMigrate:      no,
		ActUpdate:       no,
		ActDestroy:      no,
		ActForceDestroy: no,
		EvGuestOff:      to(spec.VMStateSTOPPED),
		EvQuit:          to(spec.VMStateSTOPPED),
		EvCrash:         to(spec.VMStateCRASHED),
		EvMigrated:      to(spec.VMStateSTOPPED),
		EvMigrateNo:     to(spec.VMStateRUNNING),
	},
	spec.VMStateDESTROYED: {},
}

// next is the state that a leads to from s. QV_ERR_STATE when it is not legal
// there, QV_ERR_NOENT when the VM is no more.
func next(name string, s spec.VMState, a Action) (spec.VMState, error) {
	if s == spec.VMStateDESTROYED {
		return s, qverr.New(qverr.NoEnt, "VM %s was destroyed", name)
	}
	o, ok := transitions[s][a]
	if !ok {
		o = no
	}
	if o.code != 0 {
		err := qverr.New(o.code, "cannot %s VM %s: it is %s", a, name, s).With("state", string(s)).With("action", string(a))
		if s == spec.VMStatePAUSED && a == ActStop {
			err.WithHint("resume it first, or stop it with --force")
		}
		return s, err
	}
	return o.next, nil
}

// hasProcess says whether a VM in this state has a VM process.
func hasProcess(s spec.VMState) bool {
	return s == spec.VMStateRUNNING || s == spec.VMStatePAUSED || s == spec.VMStateMIGRATING
}
