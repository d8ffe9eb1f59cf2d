package machine

import (
	"bytes"
	"testing"
)

func TestGeneralPurposeEvents(t *testing.T) {
	line := false
	pm := newPowerManagement(func(high bool) { line = high })
	g := gpeBlock{pm}
	read := func(off uint16, n int) []byte {
		data := make([]byte, n)
		g.readPort(off, data)
		return data
	}
	pm.raise(9)
	if line || !bytes.Equal(read(gpeStatus, 2), []byte{0, 2}) {
		t.Errorf("an event that is not enabled: line %v, status % x", line, read(gpeStatus, 2))
	}
	for _, step := range []struct {
		off  uint16
		data []byte
		line bool
		all  []byte // the four registers afterwards
	}{
		{gpeEnable, []byte{0, 2}, true, []byte{0, 2, 0, 2}},
		{gpeStatus, []byte{0xff, 0xfd}, true, []byte{0, 2, 0, 2}}, // zeroes clear nothing
		{gpeStatus + 1, []byte{2}, false, []byte{0, 0, 0, 2}},
		{gpeEnable, []byte{1}, false, []byte{0, 0, 1, 2}},
	} {
		if kind := g.writePort(step.off, step.data); kind != 0 {
			t.Errorf("event %d", kind)
		}
		if line != step.line || !bytes.Equal(read(0, 4), step.all) {
			t.Errorf("after % x at %d: line %v, % x", step.data, step.off, line, read(0, 4))
		}
	}
	pm.raise(0)
	if !line {
		t.Error("an enabled event does not show")
	}
	pm.reset()
	if line || !bytes.Equal(read(0, 5), []byte{0, 0, 0, 0, 0xff}) {
		t.Errorf("after a reset: line %v, % x", line, read(0, 5))
	}
}
