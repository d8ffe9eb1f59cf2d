package vm

import (
	"errors"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// The whole table as a reader of the specification would draw it: a letter for
// the state that follows, "-" for QV_ERR_STATE.
const table = `
                     CREATED RUNNING PAUSED STOPPED CRASHED MIGRATING
start                R       -       -      R       R       -
stop                 -       S       -      -       -       -
force-stop           -       S       S      -       -       -
pause                -       P       -      -       -       -
resume               -       -       R      -       -       -
reset                -       R       P      -       -       -
migrate              -       M       -      -       -       -
update               C       -       -      S       X       -
destroy              D       -       -      D       D       -
force-destroy        D       D       D      D       D       -
guest-off            -       S       S      -       -       S
quit                 -       S       S      -       -       S
crash                -       X       X      -       -       X
migrated             -       -       -      -       -       S
migration-cancelled  -       -       -      -       -       R
`

var letters = map[string]spec.VMState{
	"C": spec.VMStateCREATED, "R": spec.VMStateRUNNING, "P": spec.VMStatePAUSED, "S": spec.VMStateSTOPPED,
	"X": spec.VMStateCRASHED, "M": spec.VMStateMIGRATING, "D": spec.VMStateDESTROYED,
}

var actions = map[string]Action{
	"start": ActStart, "stop": ActStop, "force-stop": ActForceStop, "pause": ActPause, "resume": ActResume, "reset": ActReset,
	"migrate": ActMigrate, "update": ActUpdate, "destroy": ActDestroy, "force-destroy": ActForceDestroy, "guest-off": EvGuestOff,
	"quit": EvQuit, "crash": EvCrash, "migrated": EvMigrated, "migration-cancelled": EvMigrateNo,
}

func TestStateTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	states := strings.Fields(lines[0])
	seen := 0
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		a, ok := actions[cells[0]]
		if !ok {
			t.Fatalf("no action %s", cells[0])
		}
		for i, cell := range cells[1:] {
			seen++
			from := spec.VMState(states[i])
			got, err := next("web", from, a)
			if cell == "-" {
				if !errors.Is(err, qverr.State) || got != from || !strings.Contains(err.Error(), "web") {
					t.Errorf("%s in %s: %s, %v; want QV_ERR_STATE", cells[0], from, got, err)
				}
				continue
			}
			if err != nil || got != letters[cell] {
				t.Errorf("%s in %s: %s, %v; want %s", cells[0], from, got, err, letters[cell])
			}
		}
	}
	for from, row := range transitions {
		if from != spec.VMStateDESTROYED && len(row) != len(actions) {
			t.Errorf("%s knows %d of %d actions", from, len(row), len(actions))
		}
	}
	if want := (len(transitions) - 1) * len(actions); seen != want {
		t.Errorf("%d of %d rows are tested", seen, want)
	}
	if _, err := next("web", spec.VMStateDESTROYED, ActStart); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("a destroyed VM: %v", err)
	}
}
