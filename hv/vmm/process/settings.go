package process

import (
	"encoding/json"
	"strings"

	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// settings are what can be changed while the guest runs: PUT with a JSON object, on
// the path of the thing.
var settings = map[string]func(*VM, *wire.Request) *wire.Response{
	"/disks":   set((*VM).putDisk),
	"/nics":    set((*VM).putNIC),
	"/console": set((*VM).putConsole),
	"/balloon": set((*VM).putBalloon),
}

// settingOf is the first part of a path.
func settingOf(path string) string {
	rest, _ := strings.CutPrefix(path, "/")
	first, _, _ := strings.Cut(rest, "/")
	return "/" + first
}

// set makes a route of a function that changes something as a body of type T says.
// name is the rest of the path.
func set[T any](change func(vm *VM, name string, body T) error) func(*VM, *wire.Request) *wire.Response {
	return func(vm *VM, req *wire.Request) *wire.Response {
		var body T
		if err := json.Unmarshal(req.Body, &body); err != nil {
			return answerError(qverr.New(qverr.Inval, "control socket: PUT %s: %w", req.Path, err))
		}
		name := strings.TrimPrefix(strings.TrimPrefix(req.Path, settingOf(req.Path)), "/")
		vm.ctl.Lock()
		defer vm.ctl.Unlock()
		if !vm.hasMachine() {
			return answerError(qverr.New(qverr.State, "PUT %s: the VM is %s", req.Path, vmm.StateStarting))
		}
		if err := change(vm, name, body); err != nil {
			return answerError(err)
		}
		return answerJSON(200, vm.info())
	}
}
