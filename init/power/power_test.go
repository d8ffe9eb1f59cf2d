package power

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestButtons(t *testing.T) {
	sys := t.TempDir()
	for name, keys := range map[string]string{
		"event0": "10000000000000 0\n",                                            // LNXPWRBN: KEY_POWER
		"event1": "402000000 3803078f800d001 feefffdfffefffff fffffffffffffffe\n", // a keyboard without
		"event2": "0\n",
		"event3": "1f 1f0010000000000 0\n", // a mouse button and KEY_POWER
	} {
		dir := filepath.Join(sys, "class/input", name, "device/capabilities")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte(keys), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := Buttons(sys); !slices.Equal(got, []string{"event0", "event3"}) {
		t.Errorf("%v", got)
	}
}

func TestEvents(t *testing.T) {
	var b bytes.Buffer
	for _, e := range [][3]uint32{{1, 116, 1}, {0, 0, 0}, {1, 116, 0}, {1, 30, 1}, {1, 116, 2}, {1, 116, 1}} {
		raw := make([]byte, eventSize)
		binary.LittleEndian.PutUint16(raw[16:], uint16(e[0]))
		binary.LittleEndian.PutUint16(raw[18:], uint16(e[1]))
		binary.LittleEndian.PutUint32(raw[20:], e[2])
		b.Write(raw)
	}
	presses := 0
	if err := events(&b, func() { presses++ }); err != nil || presses != 2 {
		t.Errorf("%d presses, %v", presses, err)
	}
}
