package process

import (
	"bytes"
	"encoding/json"
	"strings"

	"quantavirt/hv/limit"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// limited is a device whose rate can be bounded.
type limited interface {
	Limits() limit.Limits
	SetLimits(limit.Limits) error
}

// limitsOf finds the device that a path of vmm.LimitsPath names.
func limitsOf(path string) (device string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/devices/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "/limits")
}

// answerLimits reads or changes the limits of a device.
func (vm *VM) answerLimits(id string, req *wire.Request) *wire.Response {
	if !vm.hasMachine() {
		return answerError(qverr.New(qverr.State, "limits: the VM is %s", vmm.StateStarting))
	}
	for _, d := range vm.devices {
		dev, ok := d.transport.Device().(limited)
		if d.info.ID != id || !ok {
			continue
		}
		if req.Method == "PATCH" {
			if err := vm.patchLimits(dev, req.Body); err != nil {
				return answerError(err)
			}
		}
		return answerJSON(200, dev.Limits())
	}
	return answerError(qverr.New(qverr.NoEnt, "no device %q with limits", id))
}

func (vm *VM) patchLimits(dev limited, body []byte) error {
	var patch vmm.LimitsPatch
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&patch); err != nil {
		return qverr.New(qverr.Inval, "limits: %w", err)
	}
	vm.ctl.Lock() // two changes at once must not lose one
	defer vm.ctl.Unlock()
	return dev.SetLimits(patch.Apply(dev.Limits()))
}
